//! Recorded traffic of the Responses API goes through both of its dialects, the callers' and the providers'.
//!
//! The recordings lie outside the repository (`FIXTURES_DIR`, or `../shared/fixtures`); without them these tests say so
//! and pass.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "as above")]
#![expect(clippy::print_stderr, reason = "a skipped test says that it was skipped")]

#[path = "goldens/recorded.rs"]
mod recorded;

use std::collections::BTreeMap;
use std::fs;

use llm_gateway::config::{Provider, StructuredOutput};
use llm_gateway::protocol::Api;
use llm_gateway::protocol::chat::{
    ChatEvent, ChatRequest, FinishReason, Lineage, List, Part, PartBody, Place, ReplyDecoder, ReplyFault,
};
use llm_gateway::protocol::frames::{Decoding, Sse, read_whole};
use llm_gateway::protocol::inbound::responses::Responses;
use llm_gateway::protocol::inbound::{Inbound, ReplyIdentity};
use llm_gateway::protocol::usage::{Told, Usage};
use llm_gateway::providers::Target;
use llm_gateway::providers::notes::Notes;
use llm_gateway::providers::openai::responses_reply::Reader;
use llm_gateway::providers::openai::responses_request::request;
use serde_json::{Value, json};

/// Where a request says what only OpenAI itself can do, by a plain walk: use what is kept there, or tools that are found
/// as the conversation goes.
fn native_only(request: &Value) -> Option<String> {
    const FOUND_TOOLS: [&str; 4] = ["tool_search", "tool_search_call", "tool_search_output", "additional_tools"];
    let state = ["previous_response_id", "conversation"].into_iter().find(|name| !request[*name].is_null());
    let in_list = |list: &str| {
        let items = request[list].as_array()?;
        let at = items.iter().position(|item| FOUND_TOOLS.iter().any(|kind| item["type"] == *kind))?;
        Some(format!("{list}[{at}].type"))
    };
    state.map(str::to_owned).or_else(|| in_list("input")).or_else(|| in_list("tools"))
}

struct Recording {
    id: String,
    status: u64,
    stream: bool,
    request: Option<Value>,
    reply: Vec<u8>,
}

fn recordings() -> Option<Vec<Recording>> {
    let (root, index) = recorded::index()?;
    let of_this_api = index.iter().filter(|entry| entry["api"] == "responses");
    let read = |entry: &Value| {
        let file: Value =
            serde_json::from_slice(&fs::read(root.join(entry["file"].as_str().unwrap())).unwrap()).unwrap();
        Recording {
            id: entry["id"].as_str().unwrap().to_owned(),
            status: file["response"]["status"].as_u64().unwrap(),
            stream: file["response"]["body_file"].is_string(),
            request: file["request"].get("body").filter(|body| !body.is_null()).cloned(),
            reply: match file["response"]["body_file"].as_str() {
                Some(name) => fs::read(root.join(name)).unwrap(),
                None => serde_json::to_vec(&file["response"]["body"]).unwrap(),
            },
        }
    };
    let recordings: Vec<Recording> = of_this_api.map(read).collect();
    assert!(recordings.len() >= 79);
    Some(recordings.into_iter().flat_map(taken_apart).collect())
}

/// Some files hold several streams, one after the other, as no connection carries them.
fn taken_apart(recording: Recording) -> Vec<Recording> {
    const BEGIN: &str = "event: response.created";
    if !recording.stream || memchr::memmem::find_iter(&recording.reply, BEGIN).count() < 2 {
        return vec![recording];
    }
    let text = String::from_utf8(recording.reply).unwrap();
    let one = |(nth, part): (usize, &str)| Recording {
        id: format!("{}#{nth}", recording.id),
        status: recording.status,
        stream: true,
        request: None,
        reply: format!("{BEGIN}{part}").into_bytes(),
    };
    text.split(BEGIN).skip(1).enumerate().map(one).collect()
}

fn streamed(pieces: &[&[u8]]) -> Result<Vec<ChatEvent>, ReplyFault> {
    let mut decoding = Decoding::new(Box::new(Sse::default()), Box::new(Reader::default()));
    let mut events = Vec::new();
    for piece in pieces {
        decoding.push(piece, &mut events)?;
    }
    decoding.finish(&mut events)?;
    Ok(events)
}

fn events(recording: &Recording) -> Result<Vec<ChatEvent>, ReplyFault> {
    if recording.stream {
        streamed(&[&recording.reply])
    } else {
        read_whole(Box::new(Reader::default()), &recording.reply)
    }
}

/// What a reply says, by a plain walk through its response.
#[derive(Debug, Default, PartialEq)]
struct Said {
    text: String,
    reasoning: String,
    proofs: Vec<String>,
    calls: Vec<(String, String, String)>,
    sources: usize,
    others: Vec<String>,
    usage: (u64, u64, u64, u64),
}

fn expected(recording: &Recording) -> Said {
    let response = if recording.stream {
        let text = std::str::from_utf8(&recording.reply).unwrap();
        let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
        let parsed: Vec<Value> = data.filter_map(|data| serde_json::from_str(data).ok()).collect();
        let mut response = parsed.last().unwrap()["response"].clone();
        // Some leave the output out at the end.
        let done = parsed.iter().filter(|event| event["type"] == "response.output_item.done");
        let done: Vec<Value> = done.map(|event| event["item"].clone()).collect();
        if response["output"].as_array().is_none_or(Vec::is_empty) {
            response["output"] = done.clone().into();
        }
        // Azure encrypts them anew at the end.
        for (item, done) in response["output"].as_array_mut().unwrap().iter_mut().zip(&done) {
            if item["encrypted_content"].is_string() {
                item["encrypted_content"] = done["encrypted_content"].clone();
            }
        }
        response
    } else {
        serde_json::from_slice(&recording.reply).unwrap()
    };
    let mut said = Said::default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for item in response["output"].as_array().unwrap() {
        let list = |name: &str| item[name].as_array().cloned().unwrap_or_default();
        match item["type"].as_str().unwrap() {
            "message" => {
                for part in list("content") {
                    said.text += &text(&part["text"]);
                    said.sources += part["annotations"].as_array().map_or(0, Vec::len);
                }
            }
            "reasoning" => {
                let parts: Vec<String> =
                    list("summary").iter().chain(&list("content")).map(|part| text(&part["text"])).collect();
                said.reasoning += &parts.join("\n\n");
                said.proofs.extend(item["encrypted_content"].as_str().map(str::to_owned));
            }
            "function_call" | "custom_tool_call" => {
                said.calls.push((text(&item["call_id"]), text(&item["name"]), text(&item["arguments"])));
            }
            other => said.others.push(other.to_owned()),
        }
    }
    let count = |path: &str| response["usage"].pointer(path).and_then(Value::as_u64).unwrap_or(0);
    said.usage = (
        count("/input_tokens"),
        count("/output_tokens"),
        count("/input_tokens_details/cached_tokens"),
        count("/output_tokens_details/reasoning_tokens"),
    );
    said
}

fn actual(id: &str, events: &[ChatEvent]) -> Said {
    let mut said = Said::default();
    let mut calls: BTreeMap<u32, (String, String, String)> = BTreeMap::new();
    assert!(
        matches!(events.first(), Some(ChatEvent::Start { id, model, .. }) if !id.is_empty() && !model.is_empty()),
        "{id}"
    );
    for event in events {
        match event {
            ChatEvent::Text { text, .. } => said.text += text,
            ChatEvent::Reasoning { text, .. } => said.reasoning += text,
            ChatEvent::ReasoningDone { part, .. } => {
                assert!(said.reasoning.ends_with(&part.text), "{id}");
                said.proofs.extend(part.signature.as_ref().map(|signature| signature.value.clone()));
            }
            ChatEvent::CallStart { index, id, name, .. } => {
                calls.insert(*index, (id.clone(), name.clone(), String::new()));
            }
            ChatEvent::CallArguments { index, fragment, .. } => calls.get_mut(index).unwrap().2 += fragment,
            ChatEvent::Citation { .. } => said.sources += 1,
            ChatEvent::Hosted { value, .. } => said.others.push(value["type"].as_str().unwrap().to_owned()),
            ChatEvent::Picture { .. } => said.others.push("image_generation_call".to_owned()),
            ChatEvent::Usage(Usage { cache_read, output_reasoning, .. }) => {
                let ChatEvent::Usage(usage) = event else { continue };
                said.usage = (usage.input_total(), usage.output_total(), *cache_read, *output_reasoning);
            }
            _ => {}
        }
    }
    let expected = if calls.is_empty() { FinishReason::Stop } else { FinishReason::ToolCalls };
    let finishes: Vec<&ChatEvent> = events.iter().filter(|event| matches!(event, ChatEvent::Finish { .. })).collect();
    assert_eq!(finishes, [&ChatEvent::Finish { choice: 0, reason: expected }], "{id}");
    said.calls = calls.into_values().collect();
    said
}

#[test]
fn every_recorded_reply_is_read_for_what_it_says() {
    for recording in recordings().into_iter().flatten() {
        let id = recording.id.as_str();
        let events = events(&recording);
        if recording.status != 200 {
            assert!(matches!(events, Err(ReplyFault::Reported { .. })), "{id}");
            continue;
        }
        assert_eq!(actual(id, &events.unwrap()), expected(&recording), "{id}");
    }
}

#[test]
fn a_stream_that_is_cut_anywhere_reads_the_same_and_one_that_ends_early_is_an_error() {
    for recording in recordings().into_iter().flatten().filter(|recording| recording.stream) {
        let (id, reply) = (recording.id.as_str(), recording.reply.as_slice());
        let expected = streamed(&[reply]).unwrap();
        let mut seed = 7_usize;
        for longest in [1, 2, 3, 64, 4096] {
            let (mut pieces, mut rest) = (Vec::new(), reply);
            while !rest.is_empty() {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let (piece, after) = rest.split_at((1 + (seed >> 33) % longest).min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            assert_eq!(streamed(&pieces).unwrap(), expected, "{id} in pieces of {longest}");
        }
        let named = memchr::memmem::find(reply, b"\"type\":\"response.completed\"").unwrap();
        let last = memchr::memmem::rfind(&reply[..named], b"\n\n").unwrap() + 2;
        for part in 0..20 {
            let cut = &reply[..last * part / 19];
            assert_eq!(streamed(&[cut]), Err(ReplyFault::Truncated), "{id} cut at {}", cut.len());
        }
    }
}

/// The reply as a caller of this API would get it by translation says what the provider said.
#[test]
fn every_recorded_reply_can_be_written_again() {
    let identity = || ReplyIdentity { id: "r".to_owned(), created: 1, model: "m".to_owned() };
    let ask = json!({"model": "m", "input": "x", "include": ["reasoning.encrypted_content"]});
    let chat = Responses.read(ask.to_string().as_bytes()).unwrap();
    for recording in recordings().into_iter().flatten().filter(|recording| recording.status == 200) {
        let id = recording.id.as_str();
        let events = events(&recording).unwrap();
        let told = events.iter().rev().find_map(|event| match event {
            ChatEvent::Usage(usage) => Some(Told::from(*usage)),
            _ => None,
        });
        let mut whole = Responses.whole(identity(), Responses.echo(&chat));
        let mut stream = Responses.stream(identity(), Responses.echo(&chat));
        let mut bytes = Vec::new();
        for event in &events {
            whole.add(event.clone());
            stream.write(event, &mut bytes);
        }
        stream.end(told.as_ref(), None, &mut bytes);
        let body = serde_json::to_vec(&whole.finish(told.as_ref())).unwrap();
        let again = read_whole(Box::new(Reader::default()), &body).unwrap();
        assert_eq!(actual(id, &again), actual(id, &events), "{id}");
        assert_eq!(actual(id, &streamed(&[&bytes]).unwrap()), actual(id, &events), "{id}");
    }
}

#[test]
fn every_recorded_request_is_read_or_refused_by_name() {
    let Some(recordings) = recordings() else { return };
    let mut read = 0;
    for recording in &recordings {
        let Some(body) = &recording.request else { continue };
        match (Responses.read(body.to_string().as_bytes()), native_only(body)) {
            (Ok(chat), None) => goes_out_and_comes_back(&recording.id, chat),
            (Err(problem), Some(place)) => {
                assert_eq!((problem.status, problem.param), (400, Some(place)), "{}", recording.id);
                continue;
            }
            (result, place) => panic!("{}: {place:?}, {result:?}", recording.id),
        }
        read += 1;
    }
    assert!(read >= 40);
}

/// A request written for a provider of this API and read again is the same request.
fn goes_out_and_comes_back(id: &str, mut chat: ChatRequest) {
    let provider: Provider =
        serde_json::from_value(json!({"dialect": "openai", "base_url": "https://provider.example/v1"})).unwrap();
    let target = Target {
        provider: &provider,
        upstream_model: &chat.model.clone(),
        max_output_tokens: 64,
        structured_output: StructuredOutput::Native,
        strict_params: false,
    };
    let sent = request(&chat, target, &mut Notes::new(Api::Responses, false)).unwrap();
    let mut again = Responses.read(&sent.body).unwrap();
    // Members of this API's own are not sent on but for wishes of tools, and what is left to the provider is said.
    again.caller.store = chat.caller.store;
    chat.extra.retain(|name, _| name == "include");
    for tool in &mut chat.tools.offered {
        if let llm_gateway::protocol::chat::ToolBody::Function(function) = &mut tool.body {
            function.strict = function.strict.or(Some(false));
        }
    }
    again.reasoning.include_encrypted = chat.reasoning.include_encrypted;
    // Reasoning without a proof of this family's is worth nothing to it.
    for message in &mut chat.messages {
        message.parts.retain(|part| match &part.body {
            PartBody::Reasoning(block) => block.signature.as_ref().is_some_and(|proof| proof.family == Lineage::OpenAi),
            _ => true,
        });
    }
    forget_places(&mut chat);
    forget_places(&mut again);
    assert_eq!(again, chat, "{id}");
}

fn forget_places(chat: &mut ChatRequest) {
    let nowhere = Place::item(List::Input, 0);
    fn forget(parts: &mut [Part], nowhere: Place) {
        for part in parts {
            part.at = nowhere;
            if let PartBody::Result { parts, .. } = &mut part.body {
                forget(parts, nowhere);
            }
        }
    }
    for message in &mut chat.messages {
        message.at = nowhere;
        forget(&mut message.parts, nowhere);
    }
}
