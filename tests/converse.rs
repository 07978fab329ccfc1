//! Recorded traffic of Bedrock's Converse: every reply must be read as what it says, however it was cut, and what was
//! asked must be what the rules for our own requests let pass.
//!
//! The recordings lie outside the repository (`FIXTURES_DIR`, or `../shared/fixtures`); without them these tests say so
//! and pass.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking; helpers are outside the tests' own allowance"
)]
#![expect(clippy::indexing_slicing, reason = "as above")]
#![expect(clippy::print_stderr, reason = "a skipped test says that it was skipped")]

#[path = "goldens/recorded.rs"]
mod recorded;
#[path = "../src/providers/bedrock/tests/rules.rs"]
mod rules;

use std::fs;

use http::HeaderMap;
use llm_gateway::config::{Model, Provider, StructuredOutput};
use llm_gateway::protocol::chat::{ChatEvent, FinishReason, ReplyDecoder, ReplyFault};
use llm_gateway::protocol::event_stream::EventStreamDecoder;
use llm_gateway::protocol::frames::{Decoding, read_whole};
use llm_gateway::protocol::usage::Usage;
use llm_gateway::providers::Target;
use llm_gateway::providers::bedrock::Bedrock;
use llm_gateway::providers::outbound::Outbound;
use serde_json::{Value, json};

const MODEL: &str = "a-model";

/// What the service refused.
const REFUSED: &[&str] = &[
    "bedrock/bedrock-bedrock_streaming_error",
    "bedrock/model_name_suggestions-model_name_suggestion_bedrock_",
    "bedrock/multimodal_tool_returns-multimodal_tool_return_matrix_direct-uploaded_file-image-bedrock_c_",
];

struct Recording {
    id: String,
    file: Value,
    reply: Vec<u8>,
    is_stream: bool,
}

impl Recording {
    fn is_success(&self) -> bool {
        self.file["response"]["status"] == 200
    }
}

fn recordings() -> Option<Vec<Recording>> {
    let (root, index) = recorded::index()?;
    let of_ours = index.iter().filter(|entry| matches!(entry["api"].as_str(), Some("converse" | "converse-stream")));
    let read = |entry: &Value| {
        let file: Value =
            serde_json::from_slice(&fs::read(root.join(entry["file"].as_str().unwrap())).unwrap()).unwrap();
        let stream = file["response"]["body_file"].as_str();
        let reply = match stream {
            Some(name) => fs::read(root.join(name)).unwrap(),
            None => serde_json::to_vec(&file["response"]["body"]).unwrap(),
        };
        Recording { id: entry["id"].as_str().unwrap().to_owned(), is_stream: stream.is_some(), file, reply }
    };
    let recordings: Vec<Recording> = of_ours.map(read).collect();
    assert!(recordings.len() >= 32, "{}", recordings.len());
    Some(recordings)
}

fn provider() -> Provider {
    serde_json::from_value(json!({"dialect": "generic", "base_url": "https://bedrock.example"})).unwrap()
}

fn target(provider: &Provider) -> Target<'_> {
    let (max_output_tokens, structured_output) = (Model::MAX_OUTPUT_TOKENS, StructuredOutput::Native);
    Target { provider, upstream_model: MODEL, max_output_tokens, structured_output, strict_params: false }
}

fn decode(pieces: &[&[u8]]) -> (Vec<ChatEvent>, Result<(), ReplyFault>) {
    let provider = provider();
    let target = target(&provider);
    let mut decoding = Decoding::new(Bedrock.framing(target), Bedrock.reader(target));
    let mut out = Vec::new();
    for piece in pieces {
        if let Err(fault) = decoding.push(piece, &mut out) {
            return (out, Err(fault));
        }
    }
    let end = decoding.finish(&mut out);
    (out, end)
}

/// What a reply says.
#[derive(Debug, Default, PartialEq)]
struct Said {
    text: String,
    reasoning: String,
    proofs: Vec<String>,
    /// Id, name, arguments.
    calls: Vec<(String, String, String)>,
    finish: Option<FinishReason>,
    usage: Option<Usage>,
}

/// By our events, which must follow their own rules.
fn told(events: &[ChatEvent]) -> Said {
    let mut said = Said::default();
    assert!(matches!(&events[0], ChatEvent::Start { model, .. } if model == MODEL));
    for event in &events[1..] {
        match event {
            ChatEvent::Text { text, .. } => said.text += text,
            ChatEvent::Reasoning { text, .. } => said.reasoning += text,
            ChatEvent::ReasoningDone { part, .. } => {
                assert!(said.reasoning.ends_with(&part.text));
                said.proofs.push(part.signature.as_ref().unwrap().value.clone());
            }
            ChatEvent::CallStart { index, id, name, .. } => {
                assert_eq!(*index as usize, said.calls.len());
                said.calls.push((id.clone(), name.clone(), String::new()));
            }
            ChatEvent::CallArguments { index, fragment, .. } => said.calls[*index as usize].2 += fragment,
            ChatEvent::Finish { reason, .. } => assert_eq!(said.finish.replace(reason.clone()), None),
            ChatEvent::Usage(usage) => said.usage = Some(*usage),
            other => panic!("{other:?}"),
        }
    }
    said
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn finish(reason: &Value) -> Option<FinishReason> {
    Some(match reason.as_str().unwrap() {
        "end_turn" => FinishReason::Stop,
        "tool_use" => FinishReason::ToolCalls,
        other => panic!("{other}"),
    })
}

fn usage(usage: &Value) -> Option<Usage> {
    let count = |name: &str| usage[name].as_u64().unwrap_or_default();
    usage.is_object().then(|| Usage {
        input: count("inputTokens"),
        output: count("outputTokens"),
        cache_read: count("cacheReadInputTokens"),
        cache_write_5m: count("cacheWriteInputTokens"),
        ..Usage::default()
    })
}

/// By a plain look at the body.
fn plain_body(body: &Value) -> Said {
    let mut said = Said { finish: finish(&body["stopReason"]), usage: usage(&body["usage"]), ..Said::default() };
    for block in list(&body["output"]["message"]["content"]) {
        let (call, thought) = (&block["toolUse"], &block["reasoningContent"]["reasoningText"]);
        said.text += &word(&block["text"]);
        said.reasoning += &word(&thought["text"]);
        said.proofs.extend(thought["signature"].as_str().map(str::to_owned));
        if call.is_object() {
            said.calls.push((word(&call["toolUseId"]), word(&call["name"]), call["input"].to_string()));
        }
    }
    said
}

/// By a plain look at the events, of whose names none is needed.
fn plain_stream(bytes: &[u8]) -> Said {
    let mut said = Said::default();
    let mut decoder = EventStreamDecoder::default();
    decoder.push(bytes);
    let mut signature = String::new();
    while let Some(message) = decoder.next_message().unwrap() {
        let event: Value = serde_json::from_slice(message.payload).unwrap();
        let (call, delta) = (&event["start"]["toolUse"], &event["delta"]);
        if call.is_object() {
            said.calls.push((word(&call["toolUseId"]), word(&call["name"]), String::new()));
        }
        said.text += &word(&delta["text"]);
        said.reasoning += &word(&delta["reasoningContent"]["text"]);
        signature += &word(&delta["reasoningContent"]["signature"]);
        if let Some(piece) = delta["toolUse"]["input"].as_str() {
            said.calls.last_mut().unwrap().2 += piece;
        }
        if event["stopReason"].is_string() {
            said.finish = finish(&event["stopReason"]);
        }
        said.usage = usage(&event["usage"]).or(said.usage);
    }
    said.proofs.extend(Some(signature).filter(|signature| !signature.is_empty()));
    said
}

#[test]
fn every_reply_is_read_as_what_it_says() {
    let Some(recordings) = recordings() else { return };
    let (mut streams, mut bodies) = (0, 0);
    for Recording { id, reply, is_stream, .. } in recordings.iter().filter(|recording| recording.is_success()) {
        if *is_stream {
            let (events, end) = decode(&[reply]);
            assert_eq!((end, told(&events)), (Ok(()), plain_stream(reply)), "{id}");
            streams += 1;
        } else {
            let provider = provider();
            let events = read_whole(Bedrock.reader(target(&provider)), reply).unwrap();
            assert_eq!(told(&events), plain_body(&serde_json::from_slice(reply).unwrap()), "{id}");
            bodies += 1;
        }
    }
    assert_eq!((streams, bodies), (4, 25));
}

#[test]
fn where_a_stream_is_cut_makes_no_difference_and_where_it_ends_early_is_told() {
    let Some(recordings) = recordings() else { return };
    for Recording { id, reply, .. } in recordings.iter().filter(|recording| recording.is_stream) {
        let whole = decode(&[reply]);
        assert!(decode(&reply.chunks(1).collect::<Vec<_>>()) == whole, "{id} byte by byte");
        let mut random = 1_u64;
        let mut below = |bound: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(random >> 33).unwrap() % bound
        };
        for _ in 0..200 {
            let mut at = [0, below(reply.len()), below(reply.len()), below(reply.len()), reply.len()];
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|cut| &reply[cut[0]..cut[1]]).collect();
            assert!(decode(&pieces) == whole, "{id} cut at {at:?}");
        }
        for end in 0..reply.len() {
            let (events, result) = decode(&[&reply[..end]]);
            let finished = events.iter().any(|event| matches!(event, ChatEvent::Finish { .. }));
            assert!(whole.0.starts_with(&events), "{id} ended at {end}");
            // Behind the last word only what was used can be missing, and that only between events.
            assert!(result == Err(ReplyFault::Truncated) || (finished && result == Ok(())), "{id} ended at {end}");
        }
    }
}

#[test]
fn a_damaged_stream_is_never_taken_for_a_good_one() {
    let Some(recordings) = recordings() else { return };
    for Recording { id, reply, .. } in recordings.iter().filter(|recording| recording.is_stream) {
        for at in 0..reply.len() {
            let mut damaged = reply.clone();
            damaged[at] ^= 0x10;
            assert!(decode(&[&damaged]).1.is_err(), "{id} damaged at {at}");
        }
    }
}

#[test]
fn every_error_is_read() {
    let Some(recordings) = recordings() else { return };
    let mut refused = Vec::new();
    for Recording { id, file, .. } in recordings.iter().filter(|recording| !recording.is_success()) {
        let body = &file["response"]["body"];
        let error = Bedrock.read_error(400, &HeaderMap::new(), body, &provider());
        assert_eq!(error.message.as_deref(), body["message"].as_str(), "{id}");
        let unknown = body["message"] == "The provided model identifier is invalid.";
        assert_eq!(error.code.as_deref(), unknown.then_some("model_not_found"), "{id}");
        refused.push(id.as_str());
    }
    refused.sort_unstable();
    assert_eq!(refused, REFUSED);
}

#[test]
fn the_rules_for_our_requests_let_pass_what_the_service_took() {
    let Some(recordings) = recordings() else { return };
    let mut seen = 0;
    for Recording { id, file, .. } in recordings.iter().filter(|recording| recording.is_success()) {
        let request = &file["request"];
        let Some(model) = request["path"].as_str().and_then(|path| path.split('/').nth(2)) else { continue };
        assert_eq!(rules::violations(&model.replace("%3A", ":"), &request["body"]), Vec::<String>::new(), "{id}");
        seen += 1;
    }
    assert!(seen > 15, "{seen}");
}
