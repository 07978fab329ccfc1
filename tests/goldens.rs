//! Recorded traffic of many providers goes through the translation and must come out as what it says.
//!
//! The recordings lie outside the repository (`FIXTURES_DIR`, or `../shared/fixtures`); without them these tests say so
//! and pass. Nothing recorded is copied here: the snapshot has lengths, hashes and counts.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking; helpers are outside the tests' own allowance"
)]
#![expect(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "as above")]
#![expect(clippy::print_stderr, reason = "a skipped test says that it was skipped")]

#[path = "goldens/anthropic_rules.rs"]
mod anthropic_rules;
#[path = "goldens/client.rs"]
mod client;
#[path = "goldens/event_streams.rs"]
mod event_streams;
#[path = "goldens/fixtures.rs"]
mod fixtures;
#[path = "goldens/messages.rs"]
mod messages;
#[path = "goldens/oracle.rs"]
mod oracle;
#[path = "goldens/recorded.rs"]
mod recorded;

use http::HeaderMap;
use llm_gateway::config::{Model, Provider, StructuredOutput};
use llm_gateway::error::Problem;
use llm_gateway::gateway::envelope::Envelope;
use llm_gateway::gateway::meter::{Meter, Metered};
use llm_gateway::gateway::plan::Lane;
use llm_gateway::gateway::reply::{Form, Wanted, WholeReply, processor, whole_reply};
use llm_gateway::protocol::Api;
use llm_gateway::protocol::chat::ReplyFault;
use llm_gateway::protocol::chat::{ChatRequest, Part, PartBody, Role};
use llm_gateway::protocol::inbound::{Echo, Inbound as _, ReplyIdentity, chat::Chat};
use llm_gateway::protocol::usage::Usage;
use llm_gateway::providers::notes::Notes;
use llm_gateway::providers::openai::request::{self, ChatForm, OPENAI};
use llm_gateway::providers::outbound::translated;
use llm_gateway::providers::reference::NOT_FOR_MESSAGES;
use llm_gateway::providers::{StandIns, Target, UpstreamRequest, outbound, upstream_problem};
use serde_json::{Value, json};

use crate::client::{Identity, read_body, read_broken_stream, read_stream};
use crate::fixtures::{Recording, Wire, data, events, recordings};
use crate::oracle::{Expected, Reply, expected};

/// A Claude that takes budgets for thinking.
const UPSTREAM: &str = "claude-sonnet-4-5";
const ASKED_MODEL: &str = "the-model-that-was-asked-for";

fn provider(wire: Wire) -> Provider {
    let dialect = match wire {
        Wire::Chat => "openai",
        Wire::Messages => "anthropic",
    };
    serde_json::from_value(json!({"dialect": dialect, "base_url": "https://provider.example/v1"})).unwrap()
}

fn target(provider: &Provider, structured_output: StructuredOutput) -> Target<'_> {
    Target {
        provider,
        upstream_model: UPSTREAM,
        max_output_tokens: Model::MAX_OUTPUT_TOKENS,
        structured_output,
        strict_params: false,
    }
}

fn api(wire: Wire) -> Api {
    match wire {
        Wire::Chat => Api::ChatCompletions,
        Wire::Messages => Api::Messages,
    }
}

fn identity() -> ReplyIdentity {
    ReplyIdentity { id: "own".to_owned(), created: 1, model: ASKED_MODEL.to_owned() }
}

// === Running the code under test ===

fn run(wire: Wire, lane: Lane, usage_asked: bool, pieces: &[&[u8]]) -> (Vec<u8>, Metered) {
    let provider = provider(wire);
    let target = target(&provider, StructuredOutput::Native);
    let wanted = Wanted {
        api: Api::ChatCompletions,
        choices: 1,
        stream: true,
        echo: Echo { include_usage: usage_asked, ..Echo::default() },
        stand_ins: StandIns::default(),
        cost: None,
        identity: identity(),
    };
    let mut processor = processor(lane, outbound(provider.dialect()), target, wanted);
    let mut out = Vec::new();
    for piece in pieces {
        if let Err(fault) = processor.push(piece, &mut out) {
            return (out, processor.broken_off(fault));
        }
    }
    let metered = processor.finish(&mut out);
    (out, metered)
}

fn meter(wire: Wire, pieces: &[&[u8]]) -> Metered {
    let mut meter = Meter::new(api(wire), 1);
    for piece in pieces {
        meter.read(piece).unwrap();
    }
    meter.finish(&mut Vec::new())
}

/// The reply as a whole body or as a stream in one piece, whatever form the provider gave it.
fn rewritten(recording: &Recording, stream: bool, include_usage: bool) -> Result<WholeReply, ReplyFault> {
    let provider = provider(recording.wire);
    let form = if recording.stream { Form::Stream } else { Form::Json };
    let echo = Echo { include_usage, ..Echo::default() };
    let wanted = Wanted {
        api: Api::ChatCompletions,
        choices: 1,
        stream,
        echo,
        stand_ins: StandIns::default(),
        cost: None,
        identity: identity(),
    };
    let target = target(&provider, StructuredOutput::Native);
    whole_reply(recording.reply.clone(), form, Lane::Translated, outbound(provider.dialect()), target, wanted)
}

/// A reproducible sequence of numbers (Knuth's MMIX generator).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

/// Byte by byte, and at 20 sets of places.
fn cut_in_many_ways(bytes: &[u8]) -> Vec<Vec<&[u8]>> {
    let mut ways = vec![bytes.chunks(1).collect::<Vec<_>>()];
    for seed in 0..20 {
        let mut numbers = Numbers(seed);
        let mut at: Vec<usize> = (0..=numbers.below(24)).map(|_| numbers.below(bytes.len() + 1)).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        ways.push(at.windows(2).map(|window| &bytes[window[0]..window[1]]).collect());
    }
    ways
}

// === Comparing ===

fn assert_identity(id: &str, identity: &Identity, expected: &Expected) {
    assert_eq!(identity.model, ASKED_MODEL, "{id}");
    assert_eq!(identity.created, expected.created.unwrap_or(1), "{id}");
    assert_eq!(identity.id.trim_start_matches("chatcmpl-"), expected.id.trim_start_matches("chatcmpl-"), "{id}");
    assert!(identity.id.starts_with("chatcmpl-"), "{id}");
}

/// Compares all but usage. Arguments count as JSON, not as text.
fn assert_choices(id: &str, got: &Reply, expected: &Reply) {
    assert_eq!(got.choices.keys().collect::<Vec<_>>(), expected.choices.keys().collect::<Vec<_>>(), "{id}");
    for (got, expected) in got.choices.values().zip(expected.choices.values()) {
        assert_eq!(got.text, expected.text, "{id}");
        assert_eq!(got.reasoning, expected.reasoning, "{id}");
        assert_eq!(got.refusal, expected.refusal, "{id}");
        assert_eq!(got.thinking_blocks, expected.thinking_blocks, "{id}");
        assert_eq!(got.annotations, expected.annotations, "{id}");
        assert_eq!(got.citations, expected.citations, "{id}");
        assert_eq!(got.finish, expected.finish, "{id}");
        let calls = |calls: &[oracle::Call]| -> Vec<(String, String, Value)> {
            calls.iter().map(|call| (call.id.clone(), call.name.clone(), call.parsed())).collect()
        };
        assert_eq!(calls(&got.calls), calls(&expected.calls), "{id}");
    }
}

/// OpenAI's usage object has one kind of cache write.
fn as_openai_tells_it(usage: Usage) -> Usage {
    Usage { cache_write_5m: usage.cache_write_5m + usage.cache_write_1h, cache_write_1h: 0, web_searches: 0, ..usage }
}

fn assert_fault(id: &str, result: &Result<(), ReplyFault>, error: &(String, String)) {
    let (message, code) = error.clone();
    assert_eq!(*result, Err(ReplyFault::Reported { message, code: Some(code) }), "{id}");
}

fn streams(recordings: &[Recording]) -> impl Iterator<Item = &Recording> {
    recordings.iter().filter(|recording| recording.stream)
}

fn whole_successes(recordings: &[Recording]) -> impl Iterator<Item = &Recording> {
    recordings.iter().filter(|recording| !recording.stream && recording.is_success())
}

// === Replies ===

#[test]
fn every_streamed_reply_comes_out_as_strict_chunks_that_say_the_same() {
    let Some(recordings) = recordings() else { return };
    for recording in streams(&recordings) {
        let id = &recording.id;
        let expected = expected(recording);
        for usage_asked in [false, true] {
            let (out, ran) = run(recording.wire, Lane::Translated, usage_asked, &[&recording.reply]);
            assert_eq!(ran.told.map(|told| told.usage), expected.reply.usage, "{id}");
            if let Some(error) = &expected.error {
                assert_fault(id, &ran.result, error);
                let got = read_broken_stream(&out, usage_asked);
                assert_eq!(got.choices[&0].text, expected.reply.choices[&0].text, "{id}");
                assert_eq!(got.choices[&0].reasoning, expected.reply.choices[&0].reasoning, "{id}");
                continue;
            }
            assert_eq!(ran.result, Ok(()), "{id}");
            let (identity, got) = read_stream(&out, usage_asked);
            assert_identity(id, &identity, &expected);
            assert_choices(id, &got, &expected.reply);
            assert_eq!(got.usage, expected.reply.usage.map(as_openai_tells_it).filter(|_| usage_asked), "{id}");
        }
    }
}

#[test]
fn every_whole_reply_comes_out_as_a_strict_body_that_says_the_same() {
    let Some(recordings) = recordings() else { return };
    for recording in whole_successes(&recordings) {
        let id = &recording.id;
        let expected = expected(recording);
        let reply = rewritten(recording, false, false).unwrap();
        assert_eq!(reply.told.map(|told| told.usage), expected.reply.usage, "{id}");
        let (identity, got) = read_body(&reply.body);
        assert_identity(id, &identity, &expected);
        assert_choices(id, &got, &expected.reply);
        assert_eq!(got.usage, expected.reply.usage.map(as_openai_tells_it), "{id}");
    }
}

#[test]
fn the_streamed_and_the_whole_form_of_a_reply_agree() {
    let Some(recordings) = recordings() else { return };
    for recording in recordings.iter().filter(|recording| recording.is_success()) {
        let id = &recording.id;
        let (Ok(whole), Ok(stream)) = (rewritten(recording, false, false), rewritten(recording, true, true)) else {
            assert!(expected(recording).error.is_some(), "{id}");
            continue;
        };
        assert_eq!((whole.content_type, stream.content_type), ("application/json", "text/event-stream"), "{id}");
        assert_eq!(read_body(&whole.body), read_stream(&stream.body, true), "{id}");
    }
}

#[test]
fn where_a_stream_is_cut_makes_no_difference() {
    let Some(recordings) = recordings() else { return };
    for recording in streams(&recordings) {
        let (id, wire) = (&recording.id, recording.wire);
        let lanes: &[Lane] = match wire {
            Wire::Chat => &[Lane::Translated, Lane::Relayed],
            Wire::Messages => &[Lane::Translated],
        };
        for lane in lanes {
            let whole = run(wire, *lane, true, &[&recording.reply]);
            for pieces in cut_in_many_ways(&recording.reply) {
                assert!(run(wire, *lane, true, &pieces) == whole, "{id} in the lane {}", lane.name());
            }
        }
        let whole = meter(wire, &[&recording.reply]);
        for pieces in cut_in_many_ways(&recording.reply) {
            assert_eq!(meter(wire, &pieces), whole, "{id}");
        }
    }
}

#[test]
fn a_relayed_stream_loses_its_usage_chunk_and_nothing_else() {
    let Some(recordings) = recordings() else { return };
    for recording in streams(&recordings).filter(|recording| recording.wire == Wire::Chat) {
        let id = &recording.id;
        let expected = expected(recording);
        let is_usage_alone =
            |event: &str| data(event).is_some_and(|chunk| chunk["choices"] == json!([]) && chunk["usage"].is_object());
        let kept: String = events(&recording.reply).into_iter().filter(|event| !is_usage_alone(event)).collect();
        let (out, ran) = run(recording.wire, Lane::Relayed, false, &[&recording.reply]);
        assert_eq!(String::from_utf8(out).unwrap(), kept, "{id}");
        assert_eq!(ran.told.map(|told| told.usage), expected.reply.usage, "{id}");
        match &expected.error {
            None => assert_eq!(ran.result, Ok(()), "{id}"),
            Some(error) => assert_fault(id, &ran.result, error),
        }
        assert_eq!(ran.fault_was_relayed, expected.error.is_some(), "{id}");
    }
}

#[test]
fn the_meter_reads_of_a_native_reply_what_it_used_and_that_it_is_complete() {
    let Some(recordings) = recordings() else { return };
    for recording in recordings.iter().filter(|recording| recording.is_success()) {
        let id = &recording.id;
        let expected = expected(recording);
        if recording.stream {
            let metered = meter(recording.wire, &[&recording.reply]);
            assert_eq!(metered.told.map(|told| told.usage), expected.reply.usage, "{id}");
            match &expected.error {
                None => assert_eq!(metered.result, Ok(()), "{id}"),
                Some(error) => assert_fault(id, &metered.result, error),
            }
        } else {
            let provider = provider(recording.wire);
            let wanted = Wanted {
                api: api(recording.wire),
                choices: 1,
                stream: false,
                echo: Echo::default(),
                stand_ins: StandIns::default(),
                cost: None,
                identity: identity(),
            };
            let target = target(&provider, StructuredOutput::Native);
            let dialect = outbound(provider.dialect());
            let reply =
                whole_reply(recording.reply.clone(), Form::Json, Lane::Native, dialect, target, wanted).unwrap();
            assert!(reply.body == recording.reply, "{id} was not passed on as it is");
            assert_eq!(reply.told.map(|told| told.usage), expected.reply.usage, "{id}");
        }
    }
}

#[test]
fn a_stream_cut_off_before_its_finish_is_truncated_and_has_no_clean_end() {
    let Some(recordings) = recordings() else { return };
    for recording in streams(&recordings) {
        let (id, wire) = (&recording.id, recording.wire);
        for end in places_before_the_finish(recording) {
            let prefix = &recording.reply[..end];
            assert_eq!(meter(wire, &[prefix]).result, Err(ReplyFault::Truncated), "{id} cut at {end}");
            if wire == Wire::Chat {
                let (out, relayed) = run(wire, Lane::Relayed, false, &[prefix]);
                assert_eq!(relayed.result, Err(ReplyFault::Truncated), "{id} cut at {end}");
                assert!(recording.reply.starts_with(&out), "{id} cut at {end}");
            }
            let (out, translated) = run(wire, Lane::Translated, true, &[prefix]);
            assert_eq!(translated.result, Err(ReplyFault::Truncated), "{id} cut at {end}");
            read_broken_stream(&out, true);
        }
    }
}

/// A sample of places between and inside the events before the one that finishes the reply (or breaks it off).
fn places_before_the_finish(recording: &Recording) -> Vec<usize> {
    let ends_it = |event: &str| {
        event.contains("[DONE]")
            || data(event).is_some_and(|event| match recording.wire {
                Wire::Chat => event["choices"][0]["finish_reason"].is_string() || event["error"].is_object(),
                Wire::Messages => event["type"] == "message_stop",
            })
    };
    let mut numbers = Numbers(7);
    let mut places = Vec::new();
    let mut at = 0;
    for event in events(&recording.reply) {
        // Without its last brace the finishing event is not one yet either.
        let readable = event.trim_end().len() - 1;
        places.extend([at, at + numbers.below(readable), at + readable - 1]);
        if ends_it(event) {
            break;
        }
        at += event.len();
    }
    let step = places.len().div_ceil(90);
    let last = places.len().saturating_sub(3);
    (0..places.len()).filter(|nth| nth % step == 0 || *nth >= last).map(|nth| places[nth]).collect()
}

#[test]
fn a_damaged_reply_is_refused_or_read_but_never_passed_on_unreadable() {
    let Some(recordings) = recordings() else { return };
    for (nth, recording) in recordings.iter().filter(|recording| recording.is_success()).enumerate() {
        let (id, wire) = (&recording.id, recording.wire);
        for seed in 0..12 {
            let damaged = damaged(&recording.reply, seed + 100 * nth as u64);
            if !recording.stream {
                let reply = rewritten(
                    &Recording { id: id.clone(), provider: String::new(), request: None, reply: damaged, ..*recording },
                    true,
                    true,
                );
                assert!(reply.is_err() || events(&reply.unwrap().body).last() == Some(&"data: [DONE]\n\n"), "{id}");
                continue;
            }
            let (out, metered) = run(wire, Lane::Translated, true, &[&damaged]);
            let written = events(&out);
            assert_eq!(written.last() == Some(&"data: [DONE]\n\n"), metered.result.is_ok(), "{id}, seed {seed}");
            // Panics unless each one can be parsed.
            written.into_iter().filter_map(data).for_each(drop);
            let _whatever_it_read = meter(wire, &[&damaged]);
        }
    }
}

/// The bytes with a few of them overwritten, left out or doubled.
fn damaged(bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut numbers = Numbers(seed);
    let mut bytes = bytes.to_vec();
    for _ in 0..=numbers.below(6) {
        let at = numbers.below(bytes.len());
        let end = (at + numbers.below(40)).min(bytes.len());
        match numbers.below(4) {
            0 => bytes[at] = b"\"{}[]:,\\0n\n\xff"[numbers.below(12)],
            1 => drop(bytes.drain(at..end)),
            2 => bytes.extend_from_within(at..end),
            _ => drop(bytes.splice(at..at, b"null".iter().copied())),
        }
    }
    bytes
}

#[test]
fn an_error_reply_keeps_its_status_class_its_message_and_its_code() {
    let Some(recordings) = recordings() else { return };
    let failures: Vec<&Recording> = recordings.iter().filter(|recording| !recording.is_success()).collect();
    assert!(!failures.is_empty());
    for recording in failures {
        let id = &recording.id;
        let body: Value = serde_json::from_slice(&recording.reply).unwrap();
        let error = &body["error"];
        let code = if error["code"].is_null() { &error["type"] } else { &error["code"] };
        let problem =
            upstream_problem(&provider(recording.wire), recording.status, &HeaderMap::new(), &recording.reply);
        assert_eq!(problem.status, recording.status, "{id}");
        assert_eq!(json!(problem.message), error["message"], "{id}");
        assert_eq!(json!(problem.code), *code, "{id}");
    }
}

// === Requests ===

#[test]
fn every_chat_request_is_translated_to_one_that_anthropic_takes_or_refused_by_field() {
    let Some(recordings) = recordings() else { return };
    let provider = provider(Wire::Messages);
    let mut refused = Vec::new();
    for (recording, request) in requests(&recordings, Wire::Chat) {
        let id = &recording.id;
        let body = serde_json::to_vec(request).unwrap();
        let envelope = Envelope::read(&body, Api::ChatCompletions, 64).unwrap();
        for structured_output in [StructuredOutput::Native, StructuredOutput::Tool] {
            match translation(&provider, &envelope, structured_output) {
                Ok(translated) => {
                    let translated: Value = serde_json::from_slice(&translated.body).unwrap();
                    assert_eq!(anthropic_rules::violations(&translated), Vec::<String>::new(), "{id}: {translated:#}");
                    assert_eq!(translated["model"], UPSTREAM, "{id}");
                    assert_eq!(translated["stream"].as_bool().unwrap_or(false), envelope.stream, "{id}");
                    assert_says_the_same(id, request, &translated);
                }
                Err(problem) => {
                    assert_eq!(problem.status, 400, "{id}");
                    let param = problem.param.unwrap();
                    assert!(problem.message.starts_with(&param), "{id}: {}", problem.message);
                    refused.push((id.clone(), param));
                }
            }
        }
    }
    refused.dedup();
    let expected: Vec<(String, String)> =
        NOT_FOR_MESSAGES.iter().map(|(id, field, _)| ((*id).to_owned(), (*field).to_owned())).collect();
    assert_eq!(refused, expected);
}

fn translation(
    provider: &Provider,
    envelope: &Envelope<'_>,
    structured_output: StructuredOutput,
) -> Result<UpstreamRequest, Problem> {
    translated(outbound(provider.dialect()), target(provider, structured_output), envelope.chat()?)
}

/// Every text, call and result of the conversation is in the translation, in the same order.
fn assert_says_the_same(id: &str, request: &Value, translated: &Value) {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut asked = Vec::new();
    for role_is_system in [true, false] {
        for message in list(&request["messages"]) {
            if role_is_system != matches!(message["role"].as_str(), Some("system" | "developer")) {
                continue;
            }
            asked.extend(message["content"].as_str().map(str::to_owned));
            asked.extend(list(&message["content"]).iter().filter_map(|part| Some(part["text"].as_str()?.to_owned())));
            for call in list(&message["tool_calls"]) {
                asked.push(format!("{} {}", call["function"]["name"], call["function"]["arguments"].as_str().unwrap()));
            }
        }
    }
    let mut sent = Vec::new();
    let mut blocks = list(&translated["system"]);
    blocks.extend(list(&translated["messages"]).iter().flat_map(|message| list(&message["content"])));
    for block in blocks {
        sent.extend(block["text"].as_str().map(str::to_owned));
        sent.extend(list(&block["content"]).iter().filter_map(|part| Some(part["text"].as_str()?.to_owned())));
        if block["type"] == "tool_use" {
            sent.push(format!("{} {}", block["name"], block["input"]));
        }
    }
    // White space in arguments is not kept, nor blank texts, nor is the instruction counted that stands for JSON mode.
    let squeezed = |texts: Vec<String>| -> Vec<String> {
        let bare = |text: String| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
        texts.into_iter().map(bare).filter(|text| !text.is_empty()).collect()
    };
    let (asked, mut sent) = (squeezed(asked), squeezed(sent));
    if request["response_format"]["type"] == "json_object" {
        sent.retain(|text| asked.contains(text));
    }
    assert_eq!(sent, asked, "{id}");
}

/// Without what the Chat Completions writer is not to keep: where things stood and how texts were divided, cache markers,
/// the newer name of instructions, and reasoning without its text's place.
fn as_written(mut chat: ChatRequest) -> ChatRequest {
    chat.include_usage |= chat.stream;
    for message in &mut chat.messages {
        let mut parts: Vec<Part> = Vec::new();
        for part in message.parts.drain(..).filter(|part| !matches!(part.body, PartBody::Reasoning(_))) {
            match (parts.last_mut().map(|last| &mut last.body), &part.body) {
                (Some(PartBody::Text { text, .. }), PartBody::Text { text: more, .. }) => text.push_str(more),
                _ => parts.push(Part { cache: None, at: message.at, ..part }),
            }
        }
        for part in &mut parts {
            if let PartBody::Result { parts, .. } = &mut part.body {
                parts.iter_mut().for_each(|part| (part.at, part.cache) = (message.at, None));
            }
        }
        message.parts = parts;
        if message.role == Role::Developer {
            message.role = Role::System;
        }
    }
    chat.tools.offered.iter_mut().for_each(|tool| tool.cache = None);
    chat.reasoning.thinking = None;
    chat.reasoning.mode = None;
    chat
}

#[test]
fn every_chat_request_that_is_read_and_written_anew_says_the_same() {
    let Some(recordings) = recordings() else { return };
    let form = ChatForm { open_sampling: true, ..OPENAI };
    for (recording, request) in requests(&recordings, Wire::Chat) {
        let chat = Chat.read(request.to_string().as_bytes()).unwrap();
        let mut notes = Notes::new(Api::ChatCompletions, false);
        let written = request::body(&chat, &chat.model, &form, &mut notes).unwrap();
        let again = Chat.read(written.to_string().as_bytes()).unwrap();
        let dropped = notes.into_dropped();
        let (mut expected, mut got) = (as_written(chat), as_written(again));
        // What a family does not take is noted.
        for chat in [&mut expected, &mut got] {
            if dropped.iter().any(|name| name == "temperature") {
                chat.sampling.temperature = None;
            }
            chat.reasoning.effort = None;
            chat.reasoning.budget_tokens = None;
        }
        assert_eq!(got, expected, "{}", recording.id);
    }
}

#[test]
fn a_damaged_request_is_refused_with_a_400_or_translated() {
    let Some(recordings) = recordings() else { return };
    let provider = provider(Wire::Messages);
    for (recording, request) in requests(&recordings, Wire::Chat) {
        let body = serde_json::to_vec(request).unwrap();
        for seed in 0..40 {
            let body = damaged(&body, seed);
            let translated = Envelope::read(&body, Api::ChatCompletions, 64)
                .and_then(|envelope| translation(&provider, &envelope, StructuredOutput::Native));
            match translated {
                Ok(translated) => assert!(serde_json::from_slice::<Value>(&translated.body).unwrap().is_object()),
                Err(problem) => assert_eq!(problem.status, 400, "{}: {}", recording.id, problem.message),
            }
        }
    }
}

#[test]
fn requests_in_the_providers_own_dialect_change_in_the_model_alone() {
    let Some(recordings) = recordings() else { return };
    for wire in [Wire::Chat, Wire::Messages] {
        let provider = provider(wire);
        let target = target(&provider, StructuredOutput::Native);
        let mut seen = 0;
        for (recording, request) in requests(&recordings, wire) {
            let id = &recording.id;
            // Written out with spaces, as no serializer of ours does it: they must all survive.
            let body = serde_json::to_string_pretty(request).unwrap();
            let envelope = Envelope::read(body.as_bytes(), api(wire), 64).unwrap();
            let sent = outbound(provider.dialect()).faithful(api(wire), &envelope.source(), target).unwrap();
            let sent = String::from_utf8(sent.body).unwrap();
            let mut changed: Value = serde_json::from_str(&sent).unwrap();
            if wire == Wire::Chat && envelope.stream {
                assert_eq!(changed["stream_options"]["include_usage"], true, "{id}");
                changed["stream_options"] = request["stream_options"].clone();
                if request.get("stream_options").is_none() {
                    changed.as_object_mut().unwrap().shift_remove("stream_options");
                }
            } else {
                let model = request["model"].to_string();
                assert_eq!(
                    sent,
                    body.replacen(&format!("\"model\": {model}"), &format!("\"model\": \"{UPSTREAM}\""), 1),
                    "{id}"
                );
            }
            assert_eq!(changed["model"], UPSTREAM, "{id}");
            changed["model"] = request["model"].clone();
            assert_eq!(changed, *request, "{id}");
            seen += 1;
        }
        assert!(seen > 0);
    }
}

fn requests(recordings: &[Recording], wire: Wire) -> impl Iterator<Item = (&Recording, &Value)> {
    let of_wire = recordings.iter().filter(move |recording| recording.wire == wire);
    of_wire.filter_map(|recording| Some((recording, recording.request.as_ref()?)))
}

// === The snapshot ===

#[test]
fn the_recordings_translate_as_they_did() {
    let Some(recordings) = recordings() else { return };
    let lines: Vec<String> = recordings.iter().map(summary).collect();
    insta::with_settings!({snapshot_path => "goldens", prepend_module_to_snapshot => false, omit_expression => true}, {
        insta::assert_snapshot!("recordings", lines.join("\n"));
    });
}

/// One line, without any recorded text.
fn summary(recording: &Recording) -> String {
    let form = if recording.stream { "stream" } else { "whole" };
    let head = format!("{} {form}", recording.id);
    if !recording.is_success() {
        let provider = provider(recording.wire);
        let problem = upstream_problem(&provider, recording.status, &HeaderMap::new(), &recording.reply);
        return format!("{head} status={} code={}", problem.status, problem.code);
    }
    let reply = match rewritten(recording, false, false) {
        Ok(reply) => reply,
        Err(fault) => return format!("{head} fault={}", fault.code()),
    };
    let (_, read) = read_body(&reply.body);
    let mut line = head;
    for choice in read.choices.values() {
        let calls: String = choice.calls.iter().map(|call| format!("{}{}", call.name, call.parsed())).collect();
        line += &format!(
            " finish={} calls={} text={}:{:08x}",
            choice.finish,
            choice.calls.len(),
            choice.text.len(),
            short_hash(&format!("{}\n{}\n{calls}", choice.text, choice.reasoning)),
        );
        line += &format!(" reasoning={} signed={}", choice.reasoning.len(), choice.thinking_blocks.len());
    }
    let usage = reply.told.unwrap().usage;
    line + &format!(
        " in={}+r{}+w{}+h{}+a{} out={}+t{}+a{}",
        usage.input,
        usage.cache_read,
        usage.cache_write_5m,
        usage.cache_write_1h,
        usage.input_audio,
        usage.output,
        usage.output_reasoning,
        usage.output_audio,
    )
}

/// FNV-1a, 32 bits: stable across versions and machines.
fn short_hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
