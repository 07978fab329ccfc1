//! The recorded provider traffic, read from where it lies.

use std::fs;

use serde_json::Value;

/// Recordings that other tests take: `(provider, api, which tests)`, where `*` stands for every provider.
pub(crate) const ELSEWHERE: &[(&str, &str, &str)] = &[
    ("cohere", "chat", "those of the dialect"),
    ("baidu-v1", "chat", "those of the dialect `wenxinworkshop`"),
    ("workersai", "run", "those of the dialect `workers_ai`"),
    ("*", "responses", "tests/responses.rs"),
    ("*", "converse", "tests/converse.rs"),
    ("*", "converse-stream", "tests/converse.rs"),
    ("*", "generateContent", "those of the dialect `gemini`"),
    ("*", "streamGenerateContent", "those of the dialect `gemini`"),
    ("*", "embeddings", "those of `providers::side`"),
    ("*", "embedContent", "those of `providers::side`"),
    ("*", "batchEmbedContents", "those of `providers::side`"),
    ("*", "invoke", "those of `providers::side`, but for Claude's, who is called by `converse`"),
    ("*", "images", "none: the reply passes as it is"),
    ("*", "completions", "those of the API"),
    ("*", "countTokens", "those of token counting"),
    ("*", "count-tokens", "those of token counting"),
];

/// Streams of several replies in one file, one after the other, as no connection carries them. Each is taken by itself.
pub(crate) const CONCATENATED: &[&str] = &["anthropic/vai-anthropic-tool-search-deferred-regex-stream"];

/// An API whose recordings are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    /// OpenAI Chat Completions, as one of many providers speaks it.
    Chat,
    /// Anthropic Messages.
    Messages,
}

/// One exchange.
#[derive(Debug)]
pub(crate) struct Recording {
    pub(crate) id: String,
    pub(crate) provider: String,
    pub(crate) wire: Wire,
    pub(crate) stream: bool,
    pub(crate) status: u16,
    /// The request's body, where it was recorded.
    pub(crate) request: Option<Value>,
    /// The reply's bytes.
    pub(crate) reply: Vec<u8>,
}

impl Recording {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Everything in the fixtures folder that no other test takes; `None`, with a note, if there is no such folder.
pub(crate) fn recordings() -> Option<Vec<Recording>> {
    let (root, index) = crate::recorded::index()?;
    let mut recordings = Vec::new();
    for entry in &index {
        let text = |name: &str| entry[name].as_str().unwrap().to_owned();
        let (provider, api) = (text("provider"), text("api"));
        let is_elsewhere = ELSEWHERE.iter().any(|(p, a, _)| (*p == "*" || *p == provider) && *a == api);
        let wire = match api.as_str() {
            _ if is_elsewhere => continue,
            "chat" => Wire::Chat,
            "messages" => Wire::Messages,
            _ => panic!("{}: the api `{api}` of `{provider}` is taken by no test", text("id")),
        };
        let file: Value = serde_json::from_slice(&fs::read(root.join(text("file"))).unwrap()).unwrap();
        let reply = match file["response"]["body_file"].as_str() {
            Some(name) => fs::read(root.join(name)).unwrap(),
            None => serde_json::to_vec(&file["response"]["body"]).unwrap(),
        };
        let recording = Recording {
            id: text("id"),
            provider,
            wire,
            stream: file["stream"].as_bool().unwrap(),
            status: file["response"]["status"].as_u64().unwrap().try_into().unwrap(),
            request: file["request"].get("body").filter(|body| !body.is_null()).cloned(),
            reply,
        };
        if CONCATENATED.contains(&recording.id.as_str()) {
            recordings.extend(taken_apart(recording));
        } else {
            recordings.push(recording);
        }
    }
    recordings.sort_by(|a, b| a.id.cmp(&b.id));
    Some(recordings)
}

fn taken_apart(recording: Recording) -> Vec<Recording> {
    const BEGIN: &str = "event: message_start";
    let text = String::from_utf8(recording.reply).unwrap();
    let parts = text.split(BEGIN).skip(1).enumerate();
    parts
        .map(|(nth, part)| Recording {
            id: format!("{}#{nth}", recording.id),
            provider: recording.provider.clone(),
            request: None,
            reply: format!("{BEGIN}{part}").into_bytes(),
            ..recording
        })
        .collect()
}

/// The events of a stream, each with its blank line. All recordings use line feeds.
pub(crate) fn events(stream: &[u8]) -> Vec<&str> {
    let text = std::str::from_utf8(stream).unwrap();
    assert!(!text.contains('\r'));
    text.split_inclusive("\n\n").filter(|event| !event.trim().is_empty()).collect()
}

/// The `data:` of an event, parsed; `None` for comments and `[DONE]`.
pub(crate) fn data(event: &str) -> Option<Value> {
    let lines: Vec<&str> = event.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim_start).collect();
    match lines.join("\n").as_str() {
        "" | "[DONE]" => None,
        json => Some(serde_json::from_str(json).unwrap()),
    }
}
