//! Recorded Messages requests as callers of the gateway may send them.

use llm_gateway::protocol::chat::{ChatRequest, Part, PartBody, Role};
use llm_gateway::protocol::inbound::Inbound as _;
use llm_gateway::protocol::inbound::messages::Messages;
use serde_json::Value;

use crate::fixtures::{Wire, recordings};

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
