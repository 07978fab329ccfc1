//! What a recorded reply says, read off its JSON in the plainest way and apart from the code under test.

use std::collections::BTreeMap;

use llm_gateway::protocol::usage::Usage;
use serde_json::{Map, Value, json};

use crate::fixtures::{Recording, Wire, data, events};

/// A reply's content, whoever told it.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Reply {
    pub(crate) choices: BTreeMap<u64, Choice>,
    pub(crate) usage: Option<Usage>,
}

/// One choice.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Choice {
    pub(crate) text: String,
    pub(crate) reasoning: String,
    pub(crate) refusal: String,
    pub(crate) calls: Vec<Call>,
    pub(crate) thinking_blocks: Vec<Value>,
    pub(crate) annotations: Vec<Value>,
    /// Places in documents that have no address, in Anthropic's form.
    pub(crate) citations: Vec<Value>,
    /// OpenAI's word; empty while there is none.
    pub(crate) finish: String,
}

/// A tool call. The arguments are text until [`Call::parsed`].
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) arguments: String,
}

impl Call {
    pub(crate) fn parsed(&self) -> Value {
        serde_json::from_str(&self.arguments).unwrap_or_else(|error| panic!("{}: {error}", self.arguments))
    }
}

/// What a recording should come out as.
#[derive(Debug)]
pub(crate) struct Expected {
    /// Id and creation time as the provider gives them.
    pub(crate) id: String,
    pub(crate) created: Option<u64>,
    pub(crate) reply: Reply,
    /// Message and code of an error within the reply.
    pub(crate) error: Option<(String, String)>,
}

pub(crate) fn expected(recording: &Recording) -> Expected {
    let whole = || serde_json::from_slice::<Value>(&recording.reply).unwrap();
    match (recording.wire, recording.stream) {
        (Wire::Chat, false) => chat_body(&recording.provider, &whole()),
        (Wire::Chat, true) => chat_stream(&recording.provider, &recording.reply),
        (Wire::Messages, false) => message(&whole()),
        (Wire::Messages, true) => message(&assembled_message(&recording.reply)),
    }
}

// === OpenAI-like providers ===

fn chat_body(provider: &str, body: &Value) -> Expected {
    let mut reply = Reply { usage: Some(chat_usage(provider, &body["usage"])), ..Reply::default() };
    for choice in body["choices"].as_array().unwrap() {
        let message = &choice["message"];
        let mut expected = Choice { finish: chat_finish(&choice["finish_reason"]), ..Choice::default() };
        add_content(&mut expected, message);
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            expected.calls.push(Call {
                id: string(&call["id"]),
                name: string(&call["function"]["name"]),
                arguments: string(&call["function"]["arguments"]),
            });
        }
        reply.choices.insert(choice["index"].as_u64().unwrap(), expected);
    }
    add_sources(&mut reply, body);
    Expected { id: string(&body["id"]), created: body["created"].as_u64(), reply, error: None }
}

fn chat_stream(provider: &str, stream: &[u8]) -> Expected {
    let mut expected = Expected { id: String::new(), created: None, reply: Reply::default(), error: None };
    for chunk in events(stream).into_iter().filter_map(data) {
        let usages = [&chunk["usage"], &chunk["x_groq"]["usage"], &chunk["choices"][0]["usage"]];
        if let Some(usage) = usages.into_iter().find(|usage| usage.is_object()) {
            expected.reply.usage = Some(chat_usage(provider, usage));
        }
        if chunk["error"].is_object() {
            let error = &chunk["error"];
            let code = if error["code"].is_null() { &error["type"] } else { &error["code"] };
            let code = code.as_str().map_or_else(|| code.to_string(), str::to_owned);
            expected.error = Some((string(&error["message"]), code));
            break;
        }
        add_sources(&mut expected.reply, &chunk);
        for choice in chunk["choices"].as_array().into_iter().flatten() {
            if expected.id.is_empty() {
                expected.id = string(&chunk["id"]);
                expected.created = chunk["created"].as_u64();
            }
            let so_far = expected.reply.choices.entry(choice["index"].as_u64().unwrap()).or_default();
            add_content(so_far, &choice["delta"]);
            for call in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
                // No recorded provider reuses an index, and those that give none send each call in one piece.
                let position = call["index"].as_u64().map_or(so_far.calls.len(), |index| index.try_into().unwrap());
                if position == so_far.calls.len() {
                    so_far.calls.push(Call::default());
                }
                let known = &mut so_far.calls[position];
                known.id.push_str(call["id"].as_str().unwrap_or_default());
                known.name.push_str(call["function"]["name"].as_str().unwrap_or_default());
                known.arguments.push_str(call["function"]["arguments"].as_str().unwrap_or_default());
            }
            if choice["finish_reason"].is_string() {
                so_far.finish = chat_finish(&choice["finish_reason"]);
            }
        }
    }
    expected
}

fn add_content(choice: &mut Choice, message: &Value) {
    match &message["content"] {
        Value::Null => {}
        Value::String(text) => choice.text.push_str(text),
        // Mistral's reasoning models.
        Value::Array(parts) => {
            for part in parts {
                match part["type"].as_str().unwrap() {
                    "text" => choice.text.push_str(part["text"].as_str().unwrap()),
                    "thinking" => choice.reasoning.push_str(part["thinking"][0]["text"].as_str().unwrap()),
                    other => panic!("a content part of type {other}"),
                }
            }
        }
        other => panic!("content is {other}"),
    }
    for field in ["reasoning_content", "reasoning"] {
        choice.reasoning.push_str(message[field].as_str().unwrap_or_default());
    }
    choice.refusal.push_str(message["refusal"].as_str().unwrap_or_default());
    choice.annotations.extend(message["annotations"].as_array().into_iter().flatten().cloned());
}

/// The addresses that Perplexity has beside its choices, in each chunk again.
fn add_sources(reply: &mut Reply, body: &Value) {
    for url in body["citations"].as_array().into_iter().flatten() {
        let annotation = url_citation(url, &json!(""), 0, 0);
        let choice = reply.choices.entry(0).or_default();
        if !choice.annotations.contains(&annotation) {
            choice.annotations.push(annotation);
        }
    }
}

/// OpenAI's annotation; the places count characters of the answer.
fn url_citation(url: &Value, title: &Value, start: usize, end: usize) -> Value {
    let told = json!({"url": url, "title": title, "start_index": start, "end_index": end});
    json!({"type": "url_citation", "url_citation": told})
}

fn chat_finish(word: &Value) -> String {
    match word.as_str().unwrap() {
        known @ ("stop" | "length" | "tool_calls" | "content_filter") => known.to_owned(),
        other => panic!("a finish reason that no recording had so far: {other}"),
    }
}

fn chat_usage(provider: &str, usage: &Value) -> Usage {
    let number = |pointer: &str| usage.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    let (prompt, completion) = (number("/prompt_tokens"), number("/completion_tokens"));
    let cached = match provider {
        "mistral" => number("/num_cached_tokens"),
        "deepseek" => number("/prompt_cache_hit_tokens"),
        _ => number("/prompt_tokens_details/cached_tokens"),
    };
    let written = number("/prompt_tokens_details/cache_write_tokens");
    let audio = number("/prompt_tokens_details/audio_tokens");
    let reasoning = number("/completion_tokens_details/reasoning_tokens");
    // xAI tells reasoning beside the completion; OpenRouter once told more of it than there was completion.
    let visible = if provider == "xai" { completion } else { completion.saturating_sub(reasoning) };
    let reasoning = if provider == "xai" { reasoning } else { reasoning.min(completion) };
    Usage {
        input: prompt - cached - written - audio,
        cache_read: cached,
        cache_write_5m: written,
        input_audio: audio,
        output: visible,
        output_reasoning: reasoning,
        web_searches: number("/server_tool_use_details/web_search_requests"),
        ..Usage::default()
    }
}

// === Anthropic ===

fn message(message: &Value) -> Expected {
    let mut choice = Choice { finish: message_finish(&message["stop_reason"]), ..Choice::default() };
    for block in message["content"].as_array().unwrap() {
        match block["type"].as_str().unwrap() {
            "text" => {
                let start = choice.text.chars().count();
                choice.text.push_str(block["text"].as_str().unwrap());
                let end = choice.text.chars().count();
                for cited in block["citations"].as_array().into_iter().flatten() {
                    if cited["url"].is_string() {
                        choice.annotations.push(url_citation(&cited["url"], &cited["title"], start, end));
                    } else {
                        choice.citations.push(cited.clone());
                    }
                }
            }
            "thinking" => {
                choice.reasoning.push_str(block["thinking"].as_str().unwrap());
                choice.thinking_blocks.push(block.clone());
            }
            "redacted_thinking" => choice.thinking_blocks.push(block.clone()),
            "tool_use" => choice.calls.push(Call {
                id: string(&block["id"]),
                name: string(&block["name"]),
                arguments: block["input"].to_string(),
            }),
            // What the provider did on its own side has no place in a chat completion.
            _ => {}
        }
    }
    let reply = Reply { choices: BTreeMap::from([(0, choice)]), usage: Some(message_usage(&message["usage"])) };
    Expected { id: string(&message["id"]), created: None, reply, error: None }
}

/// Puts the message together that a stream tells of, as a whole reply would have it.
pub(crate) fn assembled_message(stream: &[u8]) -> Value {
    let mut message = Value::Null;
    let mut fragments: BTreeMap<u64, String> = BTreeMap::new();
    for event in events(stream).into_iter().filter_map(data) {
        let index = event["index"].as_u64().unwrap_or(0);
        match event["type"].as_str().unwrap() {
            "message_start" => message = event["message"].clone(),
            "content_block_start" => {
                let content = message["content"].as_array_mut().unwrap();
                assert_eq!(content.len() as u64, index);
                content.push(event["content_block"].clone());
            }
            "content_block_delta" => {
                let delta = &event["delta"];
                let block = &mut message["content"].as_array_mut().unwrap()[usize::try_from(index).unwrap()];
                let field = match delta["type"].as_str().unwrap() {
                    "text_delta" => "text",
                    "thinking_delta" => "thinking",
                    "signature_delta" => "signature",
                    "input_json_delta" => {
                        fragments.entry(index).or_default().push_str(delta["partial_json"].as_str().unwrap());
                        continue;
                    }
                    "citations_delta" => {
                        let mut citations = block["citations"].as_array().cloned().unwrap_or_default();
                        citations.push(delta["citation"].clone());
                        block["citations"] = citations.into();
                        continue;
                    }
                    "compaction_delta" => continue,
                    other => panic!("a delta of type {other}"),
                };
                block[field] = format!("{}{}", block[field].as_str().unwrap_or_default(), string(&delta[field])).into();
            }
            "message_delta" => {
                message["stop_reason"] = event["delta"]["stop_reason"].clone();
                for (name, value) in event["usage"].as_object().unwrap_or(&Map::new()) {
                    message["usage"][name] = value.clone();
                }
            }
            "content_block_stop" | "message_stop" | "ping" => {}
            other => panic!("an event of type {other}"),
        }
    }
    for (index, fragment) in fragments.into_iter().filter(|(_, fragment)| !fragment.is_empty()) {
        message["content"][usize::try_from(index).unwrap()]["input"] = serde_json::from_str(&fragment).unwrap();
    }
    message
}

fn message_finish(word: &Value) -> String {
    let finish = match word.as_str().unwrap() {
        "end_turn" | "stop_sequence" | "pause_turn" => "stop",
        "tool_use" => "tool_calls",
        "max_tokens" => "length",
        "refusal" => "content_filter",
        other => panic!("a stop reason that no recording had so far: {other}"),
    };
    finish.to_owned()
}

fn message_usage(usage: &Value) -> Usage {
    // Compaction and advisors are billed beside the counts at the top.
    let mut billed = vec![usage.clone()];
    let iterations = usage["iterations"].as_array().into_iter().flatten();
    let beside = [json!("compaction"), json!("advisor_message")];
    billed.extend(iterations.filter(|iteration| beside.contains(&iteration["type"])).cloned());
    let sum = |pointer: &str| -> u64 { billed.iter().filter_map(|part| part.pointer(pointer)?.as_u64()).sum() };
    let hour = sum("/cache_creation/ephemeral_1h_input_tokens");
    let thinking = usage["output_tokens_details"]["thinking_tokens"].as_u64().unwrap_or(0);
    Usage {
        input: sum("/input_tokens"),
        cache_read: sum("/cache_read_input_tokens"),
        cache_write_5m: sum("/cache_creation_input_tokens") - hour,
        cache_write_1h: hour,
        output: sum("/output_tokens") - thinking,
        output_reasoning: thinking,
        web_searches: usage["server_tool_use"]["web_search_requests"].as_u64().unwrap_or(0),
        ..Usage::default()
    }
}

fn string(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
