//! A client that takes nothing on trust: reads what callers get and insists on everything that OpenAI's format says.

use llm_gateway::protocol::usage::Usage;
use serde_json::{Value, json};

use crate::fixtures::{data, events};
use crate::oracle::{Call, Choice, Reply};

/// What stands in every chunk of a stream, or at the top of a body.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Identity {
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) model: String,
}

/// Reads a complete stream.
pub(crate) fn read_stream(stream: &[u8], usage_asked: bool) -> (Identity, Reply) {
    let events = events(stream);
    assert_eq!(events.last().copied(), Some("data: [DONE]\n\n"));
    let mut chunks: Vec<Value> = events.iter().copied().filter_map(data).collect();
    assert_eq!(chunks.len() + 1, events.len(), "something that is neither a chunk nor the end");
    let usage = usage_asked.then(|| {
        let last = chunks.pop().unwrap();
        assert_eq!(last["choices"], json!([]));
        read_usage(&last["usage"])
    });
    let (identity, mut reply) = read_chunks(&chunks, usage_asked);
    assert!(reply.choices.values().all(|choice| !choice.finish.is_empty()), "a choice without a finish reason");
    reply.usage = usage;
    (identity.unwrap(), reply)
}

/// Reads a stream that broke off: no finish reason, no usage, no `[DONE]`.
pub(crate) fn read_broken_stream(stream: &[u8], usage_asked: bool) -> Reply {
    let events = events(stream);
    let chunks: Vec<Value> = events.iter().copied().filter_map(data).collect();
    assert_eq!(chunks.len(), events.len());
    let (_, reply) = read_chunks(&chunks, usage_asked);
    assert!(reply.choices.values().all(|choice| choice.finish.is_empty()), "a clean end of a broken stream");
    reply
}

fn read_chunks(chunks: &[Value], usage_asked: bool) -> (Option<Identity>, Reply) {
    let mut identity = None;
    let mut reply = Reply::default();
    for chunk in chunks {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        let own = identity_of(chunk);
        assert_eq!(*identity.get_or_insert_with(|| own.clone()), own);
        let usage = usage_asked.then_some(&Value::Null);
        assert_eq!(chunk.get("usage"), usage, "usage stands in the last chunk, and only if it was asked for");
        let [choice] = chunk["choices"].as_array().unwrap().as_slice() else { panic!("not one choice: {chunk}") };
        let number = choice["index"].as_u64().unwrap();
        let is_first = !reply.choices.contains_key(&number);
        assert_eq!(choice["delta"].get("role"), is_first.then_some(&json!("assistant")));
        let so_far = reply.choices.entry(number).or_default();
        assert_eq!(so_far.finish, "", "something after the finish reason");
        read_message(so_far, &choice["delta"]);
        for call in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
            read_call_piece(&mut so_far.calls, call);
        }
        so_far.finish.push_str(choice["finish_reason"].as_str().unwrap_or_default());
    }
    (identity, reply)
}

/// A call begins with the next index, its id and its name; what follows has neither.
fn read_call_piece(calls: &mut Vec<Call>, piece: &Value) {
    let index = usize::try_from(piece["index"].as_u64().unwrap()).unwrap();
    let begins = piece.get("id").is_some();
    if begins {
        assert_eq!(index, calls.len(), "calls are numbered as they come");
        assert_eq!(piece["type"], "function");
        let (id, name) = (string(&piece["id"]), string(&piece["function"]["name"]));
        assert!(!id.is_empty() && !name.is_empty());
        assert!(calls.iter().all(|known| known.id != id), "an id given twice");
        calls.push(Call { id, name, arguments: String::new() });
    } else {
        assert_eq!(piece["function"].get("name"), None);
    }
    calls[index].arguments.push_str(piece["function"]["arguments"].as_str().unwrap());
}

/// Reads a whole body.
pub(crate) fn read_body(body: &[u8]) -> (Identity, Reply) {
    let body: Value = serde_json::from_slice(body).unwrap();
    assert_eq!(body["object"], "chat.completion");
    let mut reply = Reply { usage: Some(read_usage(&body["usage"])), ..Reply::default() };
    for choice in body["choices"].as_array().unwrap() {
        let message = &choice["message"];
        assert_eq!(message["role"], "assistant");
        let mut read = Choice { finish: string(&choice["finish_reason"]), ..Choice::default() };
        read_message(&mut read, message);
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            assert_eq!(call["type"], "function");
            read.calls.push(Call {
                id: string(&call["id"]),
                name: string(&call["function"]["name"]),
                arguments: string(&call["function"]["arguments"]),
            });
        }
        assert!(message["content"].is_string() || !read.calls.is_empty() || !read.refusal.is_empty());
        reply.choices.insert(choice["index"].as_u64().unwrap(), read);
    }
    (identity_of(&body), reply)
}

fn read_message(choice: &mut Choice, message: &Value) {
    let text = |name: &str| message[name].as_str().unwrap_or_default();
    choice.text.push_str(text("content"));
    choice.refusal.push_str(text("refusal"));
    choice.reasoning.push_str(text("reasoning_content"));
    let list = |name: &str| message[name].as_array().into_iter().flatten().cloned();
    choice.thinking_blocks.extend(list("thinking_blocks"));
    choice.annotations.extend(list("annotations"));
    choice.citations.extend(list("citations"));
}

/// Checks that the counts nest as OpenAI's do and pulls them apart. Cache writes are told without their lifetime.
fn read_usage(usage: &Value) -> Usage {
    let number = |pointer: &str| usage.pointer(pointer).map_or(0, |value| value.as_u64().unwrap());
    let (prompt, completion) = (number("/prompt_tokens"), number("/completion_tokens"));
    assert_eq!(number("/total_tokens"), prompt + completion);
    let cache_read = number("/prompt_tokens_details/cached_tokens");
    let cache_write_5m = number("/prompt_tokens_details/cache_write_tokens");
    let input_audio = number("/prompt_tokens_details/audio_tokens");
    let output_reasoning = number("/completion_tokens_details/reasoning_tokens");
    let output_audio = number("/completion_tokens_details/audio_tokens");
    let input_image = number("/prompt_tokens_details/image_tokens");
    let output_image = number("/completion_tokens_details/image_tokens");
    Usage {
        input: prompt - cache_read - cache_write_5m - input_audio - input_image,
        cache_read,
        cache_write_5m,
        cache_write_1h: 0,
        input_audio,
        input_image,
        output: completion - output_reasoning - output_audio - output_image,
        output_reasoning,
        output_audio,
        output_image,
        ..Usage::default()
    }
}

fn identity_of(chunk: &Value) -> Identity {
    Identity { id: string(&chunk["id"]), created: chunk["created"].as_u64().unwrap(), model: string(&chunk["model"]) }
}

fn string(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
