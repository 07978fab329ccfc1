//! Replies and errors.

use http::HeaderValue;

use super::*;
use crate::protocol::chat::{ChatEvent, Citation, FinishReason, Lineage, ReasoningPart, ReplyFault, Signature};
use crate::protocol::frames::RawEvent;
use crate::protocol::usage::{BillingFacts, Usage};

fn reader() -> Box<dyn EventReader> {
    let provider = provider();
    Bedrock.reader(target(&provider, NOVA, StructuredOutput::Native))
}

/// The events of a stream, and how it ended.
fn streamed(events: &[(&str, Value)]) -> (Vec<ChatEvent>, Result<(), ReplyFault>) {
    let (mut reader, mut out) = (reader(), Vec::new());
    for (name, data) in events {
        let (exception, data) = (name.ends_with("Exception"), data.to_string().into_bytes());
        let event = RawEvent { name: name.as_bytes(), data: data.into(), exception };
        if let Err(fault) = reader.event(&event, &mut out) {
            return (out, Err(fault));
        }
    }
    let end = reader.ended(&mut out);
    (out, end)
}

fn whole(body: Value) -> Result<Vec<ChatEvent>, ReplyFault> {
    let mut out = Vec::new();
    reader().whole(&body, &mut out).map(|()| out)
}

fn start() -> ChatEvent {
    ChatEvent::Start { id: String::new(), model: NOVA.to_owned(), created: None }
}

fn said(text: &str) -> ChatEvent {
    ChatEvent::Text { choice: 0, text: text.to_owned(), logprobs: None }
}

fn finish(reason: FinishReason) -> ChatEvent {
    ChatEvent::Finish { choice: 0, reason }
}

fn delta(at: u64, delta: Value) -> (&'static str, Value) {
    ("contentBlockDelta", json!({"contentBlockIndex": at, "delta": delta, "p": "abc"}))
}

fn begin(at: u64, start: Value) -> (&'static str, Value) {
    ("contentBlockStart", json!({"contentBlockIndex": at, "start": start}))
}

fn stop(at: u64) -> (&'static str, Value) {
    ("contentBlockStop", json!({"contentBlockIndex": at}))
}

fn end(reason: &str) -> (&'static str, Value) {
    ("messageStop", json!({"stopReason": reason}))
}

fn reply(content: Value, reason: &str) -> Value {
    json!({"output": {"message": {"role": "assistant", "content": content}}, "stopReason": reason})
}

#[test]
fn a_stream_is_read_wherever_its_usage_stands_and_however_it_begins() {
    let usage = Usage { input: 3, output: 4, ..Usage::default() };
    let metadata =
        ("metadata", json!({"usage": {"inputTokens": 3, "outputTokens": 4}, "serviceTier": {"type": "flex"}}));
    let tier = BillingFacts::expected(Some("flex"));
    let told = [ChatEvent::Billed(tier), ChatEvent::Usage(usage)];
    let body = [delta(0, json!({"text": "a"})), stop(0), end("end_turn")];
    let spoken = [start(), said("a"), finish(FinishReason::Stop)];

    let (events, ended) = streamed(
        &[&[("messageStart", json!({"role": "assistant"}))], &body[..], std::slice::from_ref(&metadata)].concat(),
    );
    assert_eq!((events, ended), ([&spoken[..], &told].concat(), Ok(())));
    let (events, ended) = streamed(&[&[metadata], &body[..]].concat());
    assert_eq!((events, ended), ([&spoken[..1], &told, &spoken[1..]].concat(), Ok(())));
    assert_eq!(streamed(&body), (spoken.to_vec(), Ok(())));
}

#[test]
fn a_stream_without_its_end_is_truncated() {
    assert_eq!(streamed(&[]).1, Err(ReplyFault::Truncated));
    assert_eq!(streamed(&[delta(0, json!({"text": "a"})), stop(0)]).1, Err(ReplyFault::Truncated));
}

#[test]
fn calls_are_counted_without_gaps_and_have_arguments() {
    let tool = |id: &str| json!({"toolUse": {"toolUseId": id, "name": "f"}});
    let (events, ended) = streamed(&[
        delta(0, json!({"text": "a"})),
        begin(1, tool("x")),
        begin(2, tool("y")),
        begin(3, json!({"toolUse": {"toolUseId": "s", "name": "nova_code_interpreter", "type": "server_tool_use"}})),
        delta(2, json!({"toolUse": {"input": "{}"}})),
        delta(1, json!({"toolUse": {"input": "{\"a\":"}})),
        delta(3, json!({"toolUse": {"input": "{}"}})),
        delta(1, json!({"toolUse": {"input": "1}"}})),
        begin(4, tool("z")),
        ("somethingNew", json!({})),
        end("tool_use"),
    ]);
    let called =
        |index, id: &str| ChatEvent::CallStart { choice: 0, index, id: id.into(), name: "f".into(), custom: false };
    let arguments = |index, fragment: &str| ChatEvent::CallArguments { choice: 0, index, fragment: fragment.into() };
    assert_eq!(
        events,
        [
            start(),
            said("a"),
            called(0, "x"),
            called(1, "y"),
            arguments(1, "{}"),
            arguments(0, "{\"a\":"),
            arguments(0, "1}"),
            called(2, "z"),
            arguments(2, "{}"),
            finish(FinishReason::ToolCalls),
        ]
    );
    assert_eq!(ended, Ok(()));
    let call = json!({"toolUse": {"toolUseId": "x", "name": "f", "input": {"a": 1}}});
    let events =
        whole(reply(json!([call, {"toolUse": {"toolUseId": "y", "name": "f", "input": {}}}]), "end_turn")).unwrap();
    assert_eq!(
        events,
        [
            start(),
            called(0, "x"),
            arguments(0, "{\"a\":1}"),
            called(1, "y"),
            arguments(1, "{}"),
            finish(FinishReason::ToolCalls)
        ]
    );
    let orphan = streamed(&[delta(0, json!({"toolUse": {"input": "{}"}}))]).1;
    assert!(matches!(orphan, Err(ReplyFault::Malformed(_))));
}

#[test]
fn reasoning_comes_with_its_proof() {
    let thought = |text: &str| ChatEvent::Reasoning { choice: 0, text: text.into() };
    let signature = Some(Signature { family: Lineage::Anthropic, value: "proof".into() });
    let signed = ReasoningPart { text: "ab".into(), signature, ..ReasoningPart::default() };
    let hidden = ReasoningPart { redacted: Some("xy".into()), ..ReasoningPart::default() };
    let [signed, hidden] = [signed, hidden].map(|part| ChatEvent::ReasoningDone { choice: 0, part });
    let (events, _) = streamed(&[
        delta(0, json!({"reasoningContent": {"text": "a"}})),
        delta(0, json!({"reasoningContent": {"text": "b"}})),
        delta(0, json!({"reasoningContent": {"signature": "proof"}})),
        stop(0),
        delta(1, json!({"reasoningContent": {"redactedContent": "eA=="}})),
        delta(1, json!({"reasoningContent": {"redactedContent": "eQ=="}})),
        end("end_turn"),
    ]);
    let done = finish(FinishReason::Stop);
    assert_eq!(events, [start(), thought("a"), thought("b"), signed.clone(), hidden.clone(), done.clone()]);
    let content = json!([
        {"reasoningContent": {"reasoningText": {"text": "ab", "signature": "proof"}}},
        {"reasoningContent": {"redactedContent": "eHk="}},
        {"reasoningContent": {"reasoningText": {"text": "unsigned"}}},
    ]);
    assert_eq!(
        whole(reply(content, "end_turn")).unwrap(),
        [start(), thought("ab"), signed, hidden, thought("unsigned"), done]
    );
}

#[test]
fn citations_and_pictures_are_kept() {
    let citation = json!({
        "title": "T", "source": "s", "sourceContent": [{"text": "a"}, {"text": "b"}],
        "location": {"web": {"url": "https://a.example", "domain": "a.example"}},
    });
    let cited = ChatEvent::Citation {
        choice: 0,
        citation: Citation {
            url: Some("https://a.example".into()),
            title: Some("T".into()),
            cited_text: Some("ab".into()),
            ..Citation::default()
        },
    };
    let picture = ChatEvent::Picture { choice: 0, media_type: "image/png".into(), data: "eHk=".into() };
    let (events, _) = streamed(&[
        delta(0, json!({"text": "a"})),
        delta(0, json!({"citation": citation})),
        begin(1, json!({"image": {"format": "png"}})),
        delta(1, json!({"image": {"source": {"bytes": "eA=="}}})),
        delta(1, json!({"image": {"source": {"bytes": "eQ=="}}})),
        stop(1),
        end("end_turn"),
    ]);
    let expected = [start(), said("a"), cited, picture, finish(FinishReason::Stop)];
    assert_eq!(events, expected);
    let content = json!([
        {"citationsContent": {"content": [{"text": "a"}], "citations": [citation]}},
        {"image": {"format": "png", "source": {"bytes": "eHk="}}},
    ]);
    assert_eq!(whole(reply(content, "end_turn")).unwrap(), expected);
    let broken = json!([{"image": {"format": "png", "source": {}, "error": {"message": "no"}}}]);
    assert!(matches!(whole(reply(broken, "end_turn")), Err(ReplyFault::Reported { message, .. }) if message == "no"));
}

#[test]
fn every_stop_reason_means_something() {
    let reason = |word: &str| {
        let (events, ended) = streamed(&[delta(0, json!({"text": "a"})), end(word)]);
        match (events.into_iter().last(), ended) {
            (Some(ChatEvent::Finish { reason, .. }), Ok(())) => Ok(reason),
            (_, ended) => Err(ended),
        }
    };
    assert_eq!(reason("end_turn"), Ok(FinishReason::Stop));
    assert_eq!(reason("stop_sequence"), Ok(FinishReason::Stop));
    assert_eq!(reason("max_tokens"), Ok(FinishReason::Length));
    assert_eq!(reason("model_context_window_exceeded"), Ok(FinishReason::ContextFull));
    assert_eq!(reason("content_filtered"), Ok(FinishReason::FILTERED));
    assert!(matches!(reason("guardrail_intervened"), Ok(FinishReason::ContentFilter { .. })));
    assert_eq!(reason("what_comes_next"), Ok(FinishReason::Stop));
    for word in ["malformed_model_output", "malformed_tool_use"] {
        assert_eq!(reason(word), Err(Err(ReplyFault::failed_finish(word))));
    }
    assert!(matches!(reason(""), Err(Err(ReplyFault::Malformed(_)))));
    for place in [json!({"delta": {"stop_sequence": "X"}}), json!({"stop_sequence": "X"})] {
        let mut body = reply(json!([{"text": "a"}]), "stop_sequence");
        body["additionalModelResponseFields"] = place;
        assert_eq!(whole(body).unwrap().last(), Some(&finish(FinishReason::StopSequence("X".into()))));
    }
}

#[test]
fn exceptions_break_a_stream_off_with_their_class() {
    let fault = |name: &str, message: &str| {
        let events = [delta(0, json!({"text": "a"})), (name, json!({"message": message}))];
        match streamed(&events).1 {
            Err(ReplyFault::Reported { message: told, code }) => {
                assert_eq!(told, message);
                code.unwrap()
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(fault("throttlingException", "slow down"), "rate_limit_exceeded");
    assert_eq!(fault("serviceUnavailableException", "later"), "overloaded_error");
    assert_eq!(fault("internalServerException", "oh"), "internalServerException");
    assert_eq!(fault("modelStreamErrorException", "oh"), "modelStreamErrorException");
    assert_eq!(fault("validationException", "no"), "invalid_request_error");
    assert_eq!(fault("validationException", "Input is too long for requested model."), "context_length_exceeded");
    let event = RawEvent { name: b"x", data: b"".into(), exception: true };
    assert!(matches!(reader().event(&event, &mut Vec::new()), Err(ReplyFault::Reported { .. })));
}

#[test]
fn a_whole_reply_that_is_none_is_no_success() {
    assert!(matches!(whole(json!({})), Err(ReplyFault::Malformed(_))));
    assert!(matches!(whole(json!({"output": {"message": {"content": []}}})), Err(ReplyFault::Malformed(_))));
    assert!(matches!(whole(json!({"message": "no"})), Err(ReplyFault::Reported { message, .. }) if message == "no"));
}

#[test]
fn errors_are_read_from_header_and_body() {
    let read = |header: Option<&'static str>, body: Value| {
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert("x-amzn-errortype", HeaderValue::from_static(header));
        }
        let error = Bedrock.read_error(400, &headers, &body, &provider());
        (error.code, error.message)
    };
    let expect = |code: &str, message: &str| (Some(code.to_owned()), Some(message.to_owned()));
    let coral = "ThrottlingException:http://internal.amazon.com/coral/com.amazon.bedrock/";
    assert_eq!(read(Some(coral), json!({"message": "slow"})), expect("rate_limit_exceeded", "slow"));
    assert_eq!(
        read(None, json!({"__type": "com.amazon.coral.service#AccessDeniedException", "Message": "no"})),
        expect("AccessDeniedException", "no")
    );
    assert_eq!(read(Some("ModelErrorException"), json!({"message": "m"})), expect("ModelErrorException", "m"));
    let unknown = "The provided model identifier is invalid.";
    assert_eq!(read(None, json!({"message": unknown})), expect("model_not_found", unknown));
    assert_eq!(read(Some("ValidationException"), json!({"message": unknown})), expect("model_not_found", unknown));
    let long = "Input is too long for requested model.";
    assert_eq!(read(Some("ValidationException"), json!({"message": long})), expect("context_length_exceeded", long));
    assert_eq!(read(Some("ValidationException"), json!({"message": "x"})), expect("invalid_request_error", "x"));
    assert_eq!(read(None, json!("text")), (None, None));
}
