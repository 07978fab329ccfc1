//! Recorded Messages requests as callers of the gateway may send them, and all recorded replies as they get them.

use llm_gateway::config::StructuredOutput;
use llm_gateway::gateway::plan::Lane;
use llm_gateway::gateway::reply::{Form, Wanted, WholeReply, whole_reply};
use llm_gateway::protocol::chat::{ChatRequest, Part, PartBody, ReplyFault, Role};
use llm_gateway::protocol::inbound::messages::Messages;
use llm_gateway::protocol::inbound::{Echo, Inbound as _};
use llm_gateway::providers::outbound::translated;
use llm_gateway::providers::{Api, StandIns, outbound};
use serde_json::{Value, json};

use crate::fixtures::{Recording, Wire, recordings};
use crate::oracle::{assembled_message, expected};

/// The recordings of the dialect that have their request.
fn requests() -> Option<Vec<(String, Value)>> {
    let messages = recordings()?.into_iter().filter(|recording| recording.wire == Wire::Messages);
    Some(messages.filter_map(|recording| Some((recording.id, recording.request?))).collect())
}

/// All texts under these names, wherever they stand, sorted.
fn texts(value: &Value, names: &[&str], out: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| texts(item, names, out)),
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(text) if names.contains(&name.as_str()) && !text.is_empty() => out.push(text.clone()),
                    _ => texts(value, names, out),
                }
            }
        }
        _ => {}
    }
}

/// The same of what was read.
fn texts_read(chat: &ChatRequest) -> Vec<String> {
    fn of(parts: &[Part], out: &mut Vec<String>) {
        for part in parts {
            match &part.body {
                PartBody::Text { text, .. } => out.push(text.clone()),
                PartBody::Reasoning(part) if !part.text.is_empty() => out.push(part.text.clone()),
                PartBody::Result { parts, .. } => of(parts, out),
                PartBody::Hosted { value, .. } => texts(value, &["text", "content", "thinking"], out),
                _ => {}
            }
        }
    }
    let mut out: Vec<String> = chat.instructions.iter().map(|part| part.text.clone()).collect();
    chat.messages.iter().for_each(|message| of(&message.parts, &mut out));
    out.sort();
    out
}

#[test]
fn every_recorded_request_is_read_with_all_that_it_says() {
    let Some(requests) = requests() else { return };
    assert!(requests.len() > 20, "{} recordings", requests.len());
    for (id, body) in requests {
        let chat = Messages.read(body.to_string().as_bytes()).unwrap_or_else(|problem| panic!("{id}: {problem:?}"));
        assert_eq!(Some(chat.model.as_str()), body["model"].as_str(), "{id}");
        assert_eq!(chat.output.max_tokens, body["max_tokens"].as_u64(), "{id}");
        assert_eq!(chat.stream, body["stream"] == true, "{id}");
        assert_eq!(chat.tools.offered.len(), body["tools"].as_array().map_or(0, Vec::len), "{id}");

        let mut said = Vec::new();
        texts(&body["messages"], &["text", "content", "thinking"], &mut said);
        match &body["system"] {
            Value::String(text) => said.push(text.clone()),
            blocks => texts(blocks, &["text"], &mut said),
        }
        said.sort();
        assert_eq!(texts_read(&chat), said, "{id}");

        let blocks = |kind: &str| {
            let messages = body["messages"].as_array().unwrap().iter();
            let blocks = messages.flat_map(|message| message["content"].as_array().into_iter().flatten());
            blocks.filter(|block| block["type"] == kind).count()
        };
        let parts = || chat.messages.iter().flat_map(|message| &message.parts);
        let calls = parts().filter(|part| matches!(part.body, PartBody::Call { .. })).count();
        let results: Vec<&Part> = parts().filter(|part| matches!(part.body, PartBody::Result { .. })).collect();
        assert_eq!((calls, results.len()), (blocks("tool_use"), blocks("tool_result")), "{id}");
        assert_eq!(results.len(), chat.messages.iter().filter(|message| message.role == Role::Tool).count(), "{id}");
        let named = |part: &&&Part| matches!(&part.body, PartBody::Result { name: Some(_), .. });
        assert_eq!(results.iter().filter(named).count(), results.len(), "{id}: every result answers a call before it");
    }
}

#[test]
fn every_recorded_request_is_translated_or_refused_by_its_place() {
    let Some(requests) = requests() else { return };
    let provider = crate::provider(Wire::Chat);
    let target = crate::target(&provider, StructuredOutput::Native);
    let mut refused = 0;
    for (id, body) in &requests {
        let chat = Messages.read(body.to_string().as_bytes()).unwrap();
        let sent = match translated(outbound(provider.dialect()), target, &chat) {
            Ok(request) => serde_json::from_slice::<Value>(&request.body).unwrap(),
            Err(problem) => {
                // Tools and servers that Anthropic runs, and files that only it has.
                let place = problem.param.unwrap();
                let tool = place.starts_with("tools[") && place.ends_with("].type");
                let file = place.starts_with("messages[") && body["messages"].to_string().contains("file_id");
                assert!(problem.status == 400 && (tool || file || place == "mcp_servers"), "{id}: {place}");
                refused += 1;
                continue;
            }
        };
        let messages = sent["messages"].as_array().unwrap();
        for (nth, message) in messages.iter().enumerate() {
            let answers = messages[nth + 1..].iter().take_while(|message| message["role"] == "tool");
            let answered: Vec<&Value> = answers.map(|answer| &answer["tool_call_id"]).collect();
            for call in message["tool_calls"].as_array().into_iter().flatten() {
                assert!(answered.contains(&&call["id"]), "{id}: {call} is answered at once");
            }
        }
        let mut written = Vec::new();
        texts(&sent["messages"], &["text", "content"], &mut written);
        let written = written.join("\n");
        for part in chat.messages.iter().flat_map(|message| &message.parts) {
            if let PartBody::Text { text, .. } = &part.body {
                assert!(written.contains(text.as_str()), "{id}: {text}");
            }
        }
    }
    assert!(refused < requests.len() / 2, "{refused} of {}", requests.len());
}

/// A recorded reply as a caller of Messages gets it where it is translated.
fn told(recording: &Recording, stream: bool) -> Result<WholeReply, ReplyFault> {
    let provider = crate::provider(recording.wire);
    let target = crate::target(&provider, StructuredOutput::Native);
    let form = if recording.stream { Form::Stream } else { Form::Json };
    let echo = Echo { include_usage: true, ..Echo::default() };
    let wanted = Wanted {
        api: Api::Messages,
        choices: 1,
        stream,
        echo,
        stand_ins: StandIns::default(),
        cost: None,
        identity: crate::identity(),
    };
    whole_reply(recording.reply.clone(), form, Lane::Translated, outbound(provider.dialect()), target, wanted)
}

/// The text of all blocks of a kind, one after the other.
fn joined(message: &Value, kind: &str, member: &str) -> String {
    let blocks = message["content"].as_array().unwrap().iter().filter(|block| block["type"] == kind);
    blocks.map(|block| block[member].as_str().unwrap()).collect()
}

#[test]
fn every_reply_comes_out_as_a_message_that_says_the_same() {
    let Some(recordings) = recordings() else { return };
    for recording in recordings.iter().filter(|recording| recording.is_success()) {
        let id = &recording.id;
        let expected = expected(recording);
        let (Ok(whole), Ok(stream)) = (told(recording, false), told(recording, true)) else {
            assert!(expected.error.is_some(), "{id}");
            continue;
        };
        assert_eq!(whole.told, stream.told, "{id}");
        let message: Value = serde_json::from_slice(&whole.body).unwrap();
        assert_eq!(assembled_message(&stream.body), message, "{id}");

        let said = &expected.reply.choices[&0];
        assert_eq!(joined(&message, "text", "text"), format!("{}{}", said.text, said.refusal), "{id}");
        assert_eq!(joined(&message, "thinking", "thinking"), said.reasoning, "{id}");
        let calls = message["content"].as_array().unwrap().iter().filter(|block| block["type"] == "tool_use");
        let calls: Vec<(String, Value)> =
            calls.map(|call| (call["name"].as_str().unwrap().to_owned(), call["input"].clone())).collect();
        let made: Vec<(String, Value)> = said.calls.iter().map(|call| (call.name.clone(), call.parsed())).collect();
        assert_eq!(calls, made, "{id}");
        let reason = match (said.finish.as_str(), made.is_empty()) {
            ("length", _) => "max_tokens",
            ("content_filter", _) => "refusal",
            (_, false) => "tool_use",
            (_, true) if !said.refusal.is_empty() => "refusal",
            (_, true) => "end_turn",
        };
        if message["stop_reason"] != "pause_turn" && message["stop_reason"] != "stop_sequence" {
            assert_eq!(message["stop_reason"], reason, "{id}");
        }
        let usage = expected.reply.usage.unwrap_or_default();
        assert_eq!(message["usage"]["output_tokens"], usage.output_total(), "{id}");
        assert_eq!(message["usage"]["cache_read_input_tokens"].as_u64().unwrap_or(0), usage.cache_read, "{id}");
    }
}

#[test]
fn a_message_of_anthropics_comes_out_block_by_block_as_it_was() {
    /// What is translated of a message: neighbouring texts as one, and nothing of the provider's own tools.
    fn blocks(message: &Value) -> Vec<Value> {
        let mut blocks: Vec<Value> = Vec::new();
        for block in message["content"].as_array().unwrap() {
            let kept = match block["type"].as_str().unwrap() {
                "text" => json!({"type": "text", "text": block["text"]}),
                "tool_use" => {
                    json!({"type": "tool_use", "id": block["id"], "name": block["name"], "input": block["input"]})
                }
                "thinking" | "redacted_thinking" => block.clone(),
                _ => continue,
            };
            match blocks.last_mut() {
                Some(last) if kept["type"] == "text" && last["type"] == "text" => {
                    last["text"] =
                        json!(format!("{}{}", last["text"].as_str().unwrap(), kept["text"].as_str().unwrap()));
                }
                _ if kept["text"] == "" => {}
                _ => blocks.push(kept),
            }
        }
        blocks
    }
    let Some(recordings) = recordings() else { return };
    let messages = recordings.iter().filter(|recording| recording.wire == Wire::Messages && recording.is_success());
    for recording in messages {
        let original = if recording.stream {
            assembled_message(&recording.reply)
        } else {
            serde_json::from_slice(&recording.reply).unwrap()
        };
        let translated: Value = serde_json::from_slice(&told(recording, false).unwrap().body).unwrap();
        assert_eq!(blocks(&translated), blocks(&original), "{}", recording.id);
        assert_eq!(translated["stop_reason"], original["stop_reason"], "{}", recording.id);
    }
}
