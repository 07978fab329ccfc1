use super::*;
use crate::protocol::chat::{ChatEvent, Citation, FinishReason, ReplyDecoder, ReplyFault, SoundPiece};
use crate::protocol::frames::{Decoding, Sse, read_whole};

fn reader() -> Box<dyn EventReader> {
    API.reader(target(&provider(), "gemini"))
}

fn whole(body: &Value) -> Result<Vec<ChatEvent>, ReplyFault> {
    read_whole(reader(), body.to_string().as_bytes())
}

fn streamed(chunks: &[Value]) -> Result<Vec<ChatEvent>, ReplyFault> {
    let stream: String = chunks.iter().map(|chunk| format!("data: {chunk}\r\n\r\n")).collect();
    bytes(stream.as_bytes())
}

fn bytes(stream: &[u8]) -> Result<Vec<ChatEvent>, ReplyFault> {
    let mut decoding = Decoding::new(Box::new(Sse::default()), reader());
    let mut events = Vec::new();
    decoding.push(stream, &mut events)?;
    decoding.finish(&mut events)?;
    Ok(events)
}

fn candidate(parts: Value, reason: Option<&str>) -> Value {
    let mut candidate = json!({"content": {"role": "model", "parts": parts}});
    if let Some(reason) = reason {
        candidate["finishReason"] = reason.into();
    }
    json!({"candidates": [candidate], "responseId": "r", "modelVersion": "gemini-3"})
}

/// The events between the start and the finish of a whole reply.
fn read(parts: Value) -> Vec<ChatEvent> {
    let mut events = whole(&candidate(parts, Some("STOP"))).unwrap();
    assert_eq!(events.remove(0), ChatEvent::Start { id: "r".into(), model: "gemini-3".into(), created: None });
    assert!(matches!(events.pop(), Some(ChatEvent::Finish { choice: 0, .. })));
    events
}

fn finish(reason: &str, parts: Value) -> Result<FinishReason, ReplyFault> {
    whole(&candidate(parts, Some(reason))).map(|mut events| match events.pop() {
        Some(ChatEvent::Finish { choice: 0, reason }) => reason,
        // Which no reply of this dialect ends with.
        _ => FinishReason::Pause,
    })
}

fn said(text: &str) -> ChatEvent {
    ChatEvent::Text { choice: 0, text: text.into(), logprobs: None }
}

#[test]
fn parts_become_events_in_their_order() {
    let signature = |value: &str| Signature { family: Lineage::Gemini, value: value.into() };
    let hosted = json!({"executableCode": {"code": "1", "language": "PYTHON"}, "thoughtSignature": "x"});
    let events = read(json!([
        {"text": "thinking", "thought": true},
        {"text": " hard", "thought": true, "thoughtSignature": "t"},
        {"text": "answer"},
        {"text": "", "thoughtSignature": "s"},
        hosted,
        {"inlineData": {"mimeType": "image/png", "data": "AAAA"}, "thought": true},
        {"inlineData": {"mimeType": "image/png", "data": "BBBB"}, "thoughtSignature": "i"},
        {"inlineData": {"mimeType": "audio/L16;rate=24000", "data": "CCCC"}},
        {"functionCall": {"name": "f", "args": {"b": 1, "a": [2]}}, "thoughtSignature": "c"},
        {"functionCall": {"name": "g", "id": "given"}},
        {"functionCall": {"name": "g", "id": "given", "args": null}},
        {"text": ""},
        {"whatever": 1},
    ]));
    let start = |index, id: &str, name: &str| ChatEvent::CallStart {
        choice: 0,
        index,
        id: id.into(),
        name: name.into(),
        custom: false,
    };
    let arguments = |index, fragment: &str| ChatEvent::CallArguments { choice: 0, index, fragment: fragment.into() };
    let proof = |index, value| ChatEvent::Proof { choice: 0, index, signature: signature(value) };
    let thought =
        ReasoningPart { text: "thinking hard".into(), signature: Some(signature("t")), ..ReasoningPart::default() };
    assert_eq!(
        events,
        [
            ChatEvent::Reasoning { choice: 0, text: "thinking".into() },
            ChatEvent::Reasoning { choice: 0, text: " hard".into() },
            ChatEvent::ReasoningDone { choice: 0, part: thought },
            said("answer"),
            proof(None, "s"),
            ChatEvent::Hosted { choice: 0, family: Lineage::Gemini, value: hosted },
            ChatEvent::Picture { choice: 0, media_type: "image/png".into(), data: "BBBB".into() },
            proof(None, "i"),
            ChatEvent::Sound { choice: 0, piece: SoundPiece { data: "CCCC".into(), ..SoundPiece::default() } },
            start(0, "call_r_0", "f"),
            arguments(0, r#"{"b":1,"a":[2]}"#),
            proof(Some(0), "c"),
            start(1, "given", "g"),
            arguments(1, "{}"),
            start(2, "call_r_2", "g"),
            arguments(2, "{}"),
        ]
    );
}

#[test]
fn candidates_are_choices() {
    let chunk = |index: u32, part: Value, reason: Option<&str>| json!({"candidates": [{"index": index, "content": {"parts": [part]}, "finishReason": reason}], "responseId": "r"});
    let call = json!({"functionCall": {"name": "f", "args": {}}});
    let events = streamed(&[
        chunk(1, json!({"text": "b"}), None),
        chunk(0, json!({"text": "a"}), Some("STOP")),
        chunk(1, call.clone(), None),
        chunk(1, call, Some("STOP")),
    ])
    .unwrap();
    let ids: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            ChatEvent::CallStart { choice, index, id, .. } => Some((*choice, *index, id.as_str())),
            _ => None,
        })
        .collect();
    assert_eq!(ids, [(1, 0, "call_r_1_0"), (1, 1, "call_r_1_1")]);
    let finish = |choice, reason| ChatEvent::Finish { choice, reason };
    assert_eq!(events[events.len() - 2..], [finish(0, FinishReason::Stop), finish(1, FinishReason::ToolCalls)]);
}

#[test]
fn words_for_the_end() {
    let text = || json!([{"text": "a"}]);
    let call = || json!([{"functionCall": {"name": "f"}}]);
    assert_eq!(finish("STOP", text()), Ok(FinishReason::Stop));
    assert_eq!(finish("STOP", json!([])), Ok(FinishReason::Stop));
    assert_eq!(finish("STOP", call()), Ok(FinishReason::ToolCalls));
    assert_eq!(finish("MAX_TOKENS", text()), Ok(FinishReason::Length));
    assert_eq!(finish("MAX_TOKENS", call()), Ok(FinishReason::Length));
    for word in "SAFETY RECITATION BLOCKLIST PROHIBITED_CONTENT SPII IMAGE_SAFETY IMAGE_PROHIBITED_CONTENT \
                 IMAGE_RECITATION LANGUAGE"
        .split_whitespace()
    {
        let withheld = FinishReason::ContentFilter { category: Some(word.to_owned()) };
        assert_eq!(finish(word, json!([])), Ok(withheld.clone()));
        assert_eq!(finish(word, call()), Ok(withheld));
    }
    for word in ["OTHER", "NEVER_HEARD_OF"] {
        assert_eq!(finish(word, text()), Ok(FinishReason::Stop));
        assert_eq!(finish(word, call()), Ok(FinishReason::ToolCalls));
        assert!(matches!(finish(word, json!([])), Err(ReplyFault::Reported { .. })), "{word}");
        assert!(matches!(finish(word, json!([{"text": "hm", "thought": true}])), Err(ReplyFault::Reported { .. })));
    }
    for word in ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "NO_IMAGE", "IMAGE_OTHER"] {
        for parts in [json!([]), text(), call()] {
            let mut reply = candidate(parts, Some(word));
            reply["candidates"][0]["finishMessage"] = "because".into();
            match whole(&reply) {
                Err(ReplyFault::Reported { message, code }) => {
                    assert!(message.contains(word) && message.ends_with(": because"), "{message}");
                    assert_eq!(code, Some(word.to_ascii_lowercase()));
                }
                other => panic!("{word}: {other:?}"),
            }
        }
    }
    // Beside a good end it is only a text.
    let mut reply = candidate(call(), Some("STOP"));
    reply["candidates"][0]["finishMessage"] = "Model generated function call(s).".into();
    assert!(whole(&reply).is_ok());
}

#[test]
fn a_refused_prompt_is_an_error_and_a_withheld_rest_is_an_end() {
    let blocked = json!({
        "promptFeedback": {"blockReason": "SAFETY", "blockReasonMessage": "no"}, "responseId": "r",
        "usageMetadata": {"promptTokenCount": 3, "totalTokenCount": 3},
    });
    for told in [whole(&blocked), streamed(std::slice::from_ref(&blocked))] {
        let Err(ReplyFault::Reported { message, code }) = told else { panic!("{told:?}") };
        assert_eq!(code.as_deref(), Some("content_filter"));
        assert!(message.contains("SAFETY") && message.ends_with(": no"), "{message}");
    }
    // Nothing but the usage comes before it, so that an answer is not begun.
    let mut events = Vec::new();
    let mut reader = reader();
    assert!(reader.whole(&json!([{"usageMetadata": {"promptTokenCount": 1}}, blocked]), &mut events).is_err());
    assert!(matches!(events[..], [ChatEvent::Usage(usage)] if usage.input == 3), "{events:?}");

    let events = streamed(&[candidate(json!([{"text": "a"}]), None), blocked]).unwrap();
    let category = Some("SAFETY".to_owned());
    let reason = FinishReason::ContentFilter { category };
    assert_eq!(events.last(), Some(&ChatEvent::Finish { choice: 0, reason }));
}

#[test]
fn a_stream_is_complete_when_every_candidate_is() {
    let (open, done) = (candidate(json!([{"text": "a"}]), None), candidate(json!([{"text": "b"}]), Some("STOP")));
    assert_eq!(streamed(&[]), Err(ReplyFault::Truncated));
    assert_eq!(streamed(std::slice::from_ref(&open)), Err(ReplyFault::Truncated));
    assert_eq!(streamed(&[json!({"usageMetadata": {"promptTokenCount": 1}})]), Err(ReplyFault::Truncated));
    assert_eq!(whole(&json!({"candidates": []})), Err(ReplyFault::Truncated));
    assert_eq!(whole(&open), Err(ReplyFault::Truncated));
    let unspecified = candidate(json!([{"text": "a"}]), Some("FINISH_REASON_UNSPECIFIED"));
    assert_eq!(whole(&unspecified), Err(ReplyFault::Truncated));
    assert!(streamed(&[open.clone(), done.clone()]).is_ok());
    let mut second = open.clone();
    second["candidates"][0]["index"] = 1.into();
    assert_eq!(streamed(&[second, done.clone()]), Err(ReplyFault::Truncated));
    // Some models say it with every chunk.
    let events = streamed(&[done.clone(), done.clone()]).unwrap();
    assert_eq!(events.iter().filter(|event| matches!(event, ChatEvent::Finish { .. })).count(), 1);
    assert_eq!(events.iter().filter(|event| **event == said("b")).count(), 2);
    // What only says that the connection lives is no candidate, wherever it stands.
    let alive = json!({"usageMetadata": {"promptTokenCount": 7}});
    let events = streamed(&[alive.clone(), open, alive, done]).unwrap();
    assert!(matches!(events[0], ChatEvent::Start { .. }));
    let inputs: Vec<u64> = events
        .iter()
        .filter_map(|event| match event {
            ChatEvent::Usage(usage) => Some(usage.input),
            _ => None,
        })
        .collect();
    assert_eq!(inputs, [7, 7]);
}

#[test]
fn errors_come_in_any_form() {
    let error = json!({"error": {"code": 503, "status": "UNAVAILABLE", "message": "The model is overloaded."}});
    let list = json!([error]);
    let expected =
        ReplyFault::Reported { message: "The model is overloaded.".into(), code: Some("overloaded_error".into()) };
    let open = candidate(json!([{"text": "a"}]), None);
    assert_eq!(streamed(&[open.clone(), error.clone()]), Err(expected.clone()));
    assert_eq!(streamed(std::slice::from_ref(&error)), Err(expected.clone()));
    assert_eq!(whole(&error), Err(expected.clone()));
    // Without server-sent events, where `alt=sse` was not heard.
    assert_eq!(bytes(list.to_string().as_bytes()), Err(expected.clone()));
    assert_eq!(bytes(error.to_string().as_bytes()), Err(expected.clone()));
    assert_eq!(bytes(json!([open, error]).to_string().as_bytes()), Err(expected));
}

#[test]
fn a_list_of_chunks_is_a_stream() {
    let chunks = [candidate(json!([{"text": "a"}]), None), candidate(json!([{"text": "b"}]), Some("STOP"))];
    let expected = streamed(&chunks).unwrap();
    assert_eq!(whole(&json!(chunks)), Ok(expected.clone()));
    assert_eq!(bytes(format!("[{},\r\n{}]", chunks[0], chunks[1]).as_bytes()), Ok(expected));
    assert_eq!(bytes(format!("[{},\r\n", chunks[0]).as_bytes()), Err(ReplyFault::Truncated));
}

#[test]
fn what_is_no_reply_is_malformed() {
    for call in [
        json!({}),
        json!({"name": ""}),
        json!({"name": "f", "partialArgs": []}),
        json!({"name": "f", "willContinue": true}),
    ] {
        let told = whole(&candidate(json!([{"functionCall": call}]), Some("STOP")));
        assert!(matches!(told, Err(ReplyFault::Malformed(_))), "{told:?}");
    }
    assert!(matches!(whole(&json!("text")), Err(ReplyFault::Malformed(_))));
    assert!(matches!(bytes(b"data: {\"candidates\": [\n\n"), Err(ReplyFault::Malformed(_))));
    assert!(whole(&candidate(json!([{"functionCall": {"name": "f", "willContinue": false}}]), Some("STOP"))).is_ok());
}

#[test]
fn sources_are_placed_by_characters() {
    let answer = "Größe: 5 µm. Fin";
    let mut reply = candidate(json!([{"text": answer}]), Some("STOP"));
    reply["candidates"][0]["groundingMetadata"] = json!({
        "groundingChunks": [
            {"web": {"uri": "https://a.example", "title": "A"}},
            {"retrievedContext": {"uri": "gs://b", "title": "B", "text": "from B"}},
        ],
        "groundingSupports": [
            {"segment": {"startIndex": 9, "endIndex": 15, "text": "5 µm."}, "groundingChunkIndices": [0]},
            {"segment": {"partIndex": 3, "startIndex": 0, "endIndex": 3, "text": "Fin"}, "groundingChunkIndices": [1, 7]},
            {"segment": {"endIndex": 999}, "groundingChunkIndices": [0]},
        ],
    });
    reply["candidates"][0]["citationMetadata"] =
        json!({"citationSources": [{"startIndex": 0, "endIndex": 7, "uri": "https://c.example"}]});
    let cited: Vec<Citation> = whole(&reply)
        .unwrap()
        .into_iter()
        .filter_map(|event| match event {
            ChatEvent::Citation { choice: 0, citation } => Some(citation),
            _ => None,
        })
        .collect();
    let web = |range: Option<(u64, u64)>| Citation {
        url: Some("https://a.example".into()),
        title: Some("A".into()),
        start: range.map(|range| range.0),
        end: range.map(|range| range.1),
        ..Citation::default()
    };
    let retrieved = Citation {
        url: Some("gs://b".into()),
        title: Some("B".into()),
        cited_text: Some("from B".into()),
        start: Some(13),
        end: Some(16),
        native: None,
    };
    let recited =
        Citation { url: Some("https://c.example".into()), start: Some(0), end: Some(5), ..Citation::default() };
    assert_eq!(cited, [web(Some((7, 12))), retrieved, web(None), recited]);
    let chars: Vec<char> = answer.chars().collect();
    assert_eq!(chars[7..12].iter().collect::<String>(), "5 µm.");

    // Told again, they are not told again; without supports they stand for the whole.
    let bare = json!({"groundingChunks": [{"web": {"uri": "https://a.example", "title": "A"}}]});
    let mut reply = candidate(json!([{"text": "a"}]), Some("STOP"));
    reply["candidates"][0]["groundingMetadata"] = bare;
    let events = streamed(&[reply.clone(), reply]).unwrap();
    assert_eq!(events.iter().filter(|event| matches!(event, ChatEvent::Citation { .. })).count(), 1);
}

#[test]
fn log_probabilities_are_told_in_the_form_of_openai() {
    let mut reply = candidate(json!([{"text": "é"}]), Some("STOP"));
    reply["candidates"][0]["logprobsResult"] = json!({
        "chosenCandidates": [{"token": "é", "logProbability": -0.5, "tokenId": 1}],
        "topCandidates": [{"candidates": [{"token": "é", "logProbability": -0.5}, {"token": "x", "logProbability": -2}]}],
    });
    let top = |token: &str, logprob: f64| json!({"token": token, "logprob": logprob, "bytes": token.as_bytes()});
    let mut entry = top("é", -0.5);
    entry["top_logprobs"] = json!([top("é", -0.5), {"token": "x", "logprob": -2, "bytes": [120]}]);
    let expected = ChatEvent::Text { choice: 0, text: "é".into(), logprobs: Some(json!({"content": [entry]})) };
    assert!(whole(&reply).unwrap().contains(&expected));
}

#[test]
fn searches_on_the_web_are_counted_as_they_are_charged() {
    let reply = |model: &str, queries: Value| {
        let mut reply = candidate(json!([{"text": "a"}]), Some("STOP"));
        reply["modelVersion"] = model.into();
        reply["candidates"][0]["groundingMetadata"] = json!({"webSearchQueries": queries});
        reply
    };
    let used = json!({"promptTokenCount": 3, "candidatesTokenCount": 1, "totalTokenCount": 4});
    let searches = |chunks: &[Value]| {
        let events = streamed(chunks).unwrap();
        crate::providers::usage_of(&events).map(|told| told.usage.web_searches)
    };
    for (model, queries, charged) in [
        ("gemini-2.5-flash", json!(["a", "b"]), 1),
        ("gemini-3-pro-preview", json!(["a", "b"]), 2),
        ("gemini-3-pro-preview", json!(["", "b"]), 1),
        ("gemini-2.5-flash", json!([]), 0),
    ] {
        let mut told = reply(model, queries.clone());
        told["usageMetadata"] = used.clone();
        assert_eq!(searches(&[told.clone()]), Some(charged), "{model} {queries}");
        // What one chunk has told, a later one does not take back; and usage may come before the searches are told.
        let mut bare = candidate(json!([{"text": "b"}]), Some("STOP"));
        bare["usageMetadata"] = used.clone();
        assert_eq!(searches(&[told, bare.clone()]), Some(charged), "{model} {queries}");
        assert_eq!(searches(&[bare, reply(model, queries.clone())]), Some(charged), "{model} {queries}");
    }
}
