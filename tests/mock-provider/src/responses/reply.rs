//! How a response looks, whole and as a stream.

use serde_json::{Value, json};

use super::{Asked, Call, End, Said, Thought, Told};
use crate::answer::{Answer, Conversation, Span, sized_spans};
use crate::directives::Directives;
use crate::openai::{ARGUMENT_BYTES, mid_stream_error};
use crate::reply::put;
use crate::wire::{Event, EventStream, Framing, Kind, Template};

/// The response as it is told at the beginning: what was asked for, and nothing said.
pub(super) fn echo(asked: &Asked<'_>, id: &str, created: u64) -> Value {
    let given = |name: &str, default: Value| {
        asked.fields.get(name).filter(|value| !value.is_null()).cloned().unwrap_or(default)
    };
    let reasoning = |name: &str| asked.fields.get("reasoning").and_then(|reasoning| reasoning.get(name)).cloned();
    let mut text = given("text", json!({}));
    if text.get("format").is_none_or(Value::is_null) {
        put(&mut text, "format", json!({"type": "text"}));
    }
    if text.get("verbosity").is_none_or(Value::is_null) {
        put(&mut text, "verbosity", json!("medium"));
    }
    json!({
        "id": id, "object": "response", "created_at": created, "status": "in_progress",
        "background": asked.background, "completed_at": null, "error": null, "incomplete_details": null,
        "instructions": given("instructions", Value::Null),
        "max_output_tokens": given("max_output_tokens", Value::Null),
        "max_tool_calls": given("max_tool_calls", Value::Null),
        "model": asked.model, "output": [],
        "parallel_tool_calls": asked.parallel,
        "previous_response_id": given("previous_response_id", Value::Null),
        "prompt_cache_key": given("prompt_cache_key", Value::Null),
        "reasoning": {"effort": reasoning("effort"), "summary": reasoning("summary")},
        "safety_identifier": given("safety_identifier", Value::Null),
        "service_tier": given("service_tier", json!("auto")),
        "store": asked.store,
        "temperature": given("temperature", json!(1.0)),
        "text": text,
        "tool_choice": given("tool_choice", json!("auto")),
        "tools": given("tools", json!([])),
        "top_logprobs": given("top_logprobs", json!(0)),
        "top_p": given("top_p", json!(1.0)),
        "truncation": given("truncation", json!("disabled")),
        "usage": null,
        "user": given("user", Value::Null),
        "metadata": given("metadata", json!({})),
    })
}

/// Token counts as the Responses API tells them.
pub(super) fn usage(conversation: &Conversation, output: u64, reasoning: u64, directives: &Directives) -> Value {
    let input = directives.usage_in.unwrap_or(conversation.prompt_tokens);
    let output = directives.usage_out.unwrap_or(output);
    let mut usage = json!({
        "input_tokens": input, "input_tokens_details": {"cached_tokens": directives.cached.unwrap_or(0)},
        "output_tokens": output, "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": input.saturating_add(output),
    });
    if let Some(written) = directives.cache_write
        && let Some(details) = usage.get_mut("input_tokens_details")
    {
        put(details, "cache_write_tokens", json!(written));
    }
    usage
}

/// The response at its end.
pub(super) fn finished(echo: &Value, said: &Said, created: u64, directives: &Directives) -> Value {
    let mut response = echo.clone();
    let mut output = Vec::new();
    output.extend(said.thought.as_ref().map(|thought| thought_item(thought, true)));
    output.extend(said.message.as_ref().map(|answer| message_item(said, answer, true)));
    output.extend(said.calls.iter().map(|call| call_item(call, true)));
    put(&mut response, "output", Value::Array(output));
    if response.get("service_tier").is_some_and(|tier| tier == "auto") {
        put(&mut response, "service_tier", json!("default"));
    }
    match &said.end {
        End::Completed => {
            put(&mut response, "status", json!("completed"));
            put(&mut response, "completed_at", json!(created));
        }
        End::Incomplete(reason) => {
            put(&mut response, "status", json!("incomplete"));
            put(&mut response, "incomplete_details", json!({"reason": reason}));
        }
        End::Failed => {
            let error = mid_stream_error(directives);
            put(&mut response, "status", json!("failed"));
            put(
                &mut response,
                "error",
                json!({"code": error.code.as_deref().unwrap_or("server_error"), "message": error.message}),
            );
        }
    }
    if directives.no_usage {
        if let Some(fields) = response.as_object_mut() {
            fields.remove("usage");
        }
    } else if said.end != End::Failed {
        put(&mut response, "usage", said.usage.clone());
    }
    response
}

fn thought_item(thought: &Thought, done: bool) -> Value {
    let text = |kind: &str, told: Told| match told == thought.told && done {
        true => json!([{"type": kind, "text": thought.answer.text}]),
        false => json!([]),
    };
    let mut item = json!({"id": thought.item_id, "type": "reasoning", "summary": text("summary_text", Told::Summary)});
    if thought.told == Told::Full {
        put(&mut item, "content", text("reasoning_text", Told::Full));
    }
    if let Some(proof) = &thought.proof {
        put(&mut item, "encrypted_content", json!(proof));
    }
    item
}

fn message_item(said: &Said, answer: &Answer, done: bool) -> Value {
    let status = match (&said.end, done) {
        (End::Completed, true) => "completed",
        (_, true) => "incomplete",
        (_, false) => "in_progress",
    };
    let content = if done { json!([part(said, &answer.text, true)]) } else { json!([]) };
    json!({"id": said.message_id, "type": "message", "status": status, "content": content, "role": "assistant"})
}

fn part(said: &Said, text: &str, done: bool) -> Value {
    if said.refusal {
        return json!({"type": "refusal", "refusal": text});
    }
    let annotations: Vec<Value> =
        if done { (0..said.citations).map(|number| citation(number, text)).collect() } else { Vec::new() };
    json!({"type": "output_text", "annotations": annotations, "logprobs": [], "text": text})
}

fn citation(number: usize, text: &str) -> Value {
    json!({
        "type": "url_citation", "start_index": 0, "end_index": text.chars().count(),
        "title": format!("Source {}", number + 1), "url": format!("https://example.com/{}", number + 1),
    })
}

fn call_item(call: &Call, done: bool) -> Value {
    let status = if done { "completed" } else { "in_progress" };
    let arguments = if done { call.arguments.as_str() } else { "" };
    if call.custom {
        return json!({
            "id": call.item_id, "type": "custom_tool_call", "status": status, "call_id": call.call_id,
            "name": call.name, "input": arguments,
        });
    }
    json!({
        "id": call.item_id, "type": "function_call", "status": status, "arguments": arguments,
        "call_id": call.call_id, "name": call.name,
    })
}

// --- The stream ----------------------------------------------------------------------------------------------

/// A place in the output: the item and the part of it that is written.
struct Place<'a> {
    item: &'a str,
    output: usize,
    /// `content_index` or `summary_index`, and its value is 0.
    part: Option<&'static str>,
}

impl Place<'_> {
    /// An event about this place.
    fn event(&self, kind: &str, rest: Value) -> Value {
        let mut event = json!({"type": kind, "item_id": self.item, "output_index": self.output});
        if let Some(part) = self.part {
            put(&mut event, part, json!(0));
        }
        if let (Some(event), Value::Object(rest)) = (event.as_object_mut(), rest) {
            event.extend(rest);
        }
        event
    }
}

/// Writes events. The numbers in sequence are put in when the stream is written.
struct Writer {
    events: EventStream,
}

impl Writer {
    fn opening(&mut self, name: &'static str, data: &Value) {
        self.events.push(Kind::Opening, Some(name), data.to_string());
    }

    fn template(&mut self, name: &'static str, place: &Place<'_>, text: &str, tail: &str) -> usize {
        let head = place.event(name, json!({})).to_string();
        let head = head.strip_suffix('}').unwrap_or(&head);
        self.events.template(Template {
            name: Some(name),
            head: format!(r#"{head},"delta":"#),
            source: text.to_owned(),
            tail: format!("{tail}}}"),
        })
    }

    fn deltas(&mut self, name: &'static str, place: &Place<'_>, text: &str, pieces: &[Span], tail: &str) {
        let template = self.template(name, place, text, tail);
        for piece in pieces {
            self.events.push_delta(template, *piece);
        }
    }

    fn added(&mut self, output: usize, item: &Value) {
        let event = json!({"type": "response.output_item.added", "output_index": output, "item": item});
        self.opening("response.output_item.added", &event);
    }

    fn done(&mut self, output: usize, item: &Value) {
        let event = json!({"type": "response.output_item.done", "output_index": output, "item": item});
        self.opening("response.output_item.done", &event);
    }
}

pub(super) fn stream(
    asked: &Asked<'_>,
    said: &Said,
    echo: &Value,
    whole: Value,
    directives: &Directives,
) -> EventStream {
    let error = mid_stream_error(directives);
    let error = json!({
        "type": "error", "code": error.code.as_deref().unwrap_or("server_error"), "message": error.message,
        "param": null,
    });
    let error = Event::fixed(Kind::Done, Some("error"), error.to_string());
    let mut writer = Writer { events: EventStream::new(Framing::Sse, error).numbered() };
    let obfuscated = asked.fields.get("stream_options").and_then(|options| options.get("include_obfuscation"))
        != Some(&Value::Bool(false));
    let padding = if obfuscated { r#","obfuscation":"mock0mock0mock""# } else { "" };
    if asked.background {
        let mut queued = echo.clone();
        put(&mut queued, "status", json!("queued"));
        writer.opening("response.queued", &json!({"type": "response.queued", "response": queued}));
    }
    writer.opening("response.created", &json!({"type": "response.created", "response": echo}));
    writer.opening("response.in_progress", &json!({"type": "response.in_progress", "response": echo}));
    let mut output = 0;
    if let Some(thought) = &said.thought {
        writer.think(thought, padding);
        output += 1;
    }
    if let Some(answer) = &said.message {
        writer.message(said, answer, output, padding);
        output += 1;
    }
    writer.calls(&said.calls, output, padding, directives.interleave);
    let name = match said.end {
        End::Completed => "response.completed",
        End::Incomplete(_) => "response.incomplete",
        End::Failed => "response.failed",
    };
    // It is the finish and the end in one: a stream without its end has not got it.
    let kind = if directives.no_done { Kind::Done } else { Kind::Finish };
    writer.events.push(kind, Some(name), json!({"type": name, "response": whole}).to_string());
    writer.events
}

impl Writer {
    fn think(&mut self, thought: &Thought, padding: &str) {
        self.added(0, &thought_item(thought, false));
        let text = &thought.answer.text;
        match thought.told {
            Told::Hidden => {}
            Told::Summary => {
                let place = Place { item: &thought.item_id, output: 0, part: Some("summary_index") };
                let part = |text: &str| json!({"part": {"type": "summary_text", "text": text}});
                let added = "response.reasoning_summary_part.added";
                self.opening(added, &place.event(added, part("")));
                let delta = "response.reasoning_summary_text.delta";
                self.deltas(delta, &place, text, &thought.answer.pieces, padding);
                let done = "response.reasoning_summary_text.done";
                self.opening(done, &place.event(done, json!({"text": text})));
                let done = "response.reasoning_summary_part.done";
                self.opening(done, &place.event(done, part(text)));
            }
            Told::Full => {
                let place = Place { item: &thought.item_id, output: 0, part: Some("content_index") };
                let part = |text: &str| json!({"part": {"type": "reasoning_text", "text": text}});
                let added = "response.content_part.added";
                self.opening(added, &place.event(added, part("")));
                self.deltas("response.reasoning_text.delta", &place, text, &thought.answer.pieces, padding);
                let done = "response.reasoning_text.done";
                self.opening(done, &place.event(done, json!({"text": text})));
                let done = "response.content_part.done";
                self.opening(done, &place.event(done, part(text)));
            }
        }
        self.done(0, &thought_item(thought, true));
    }

    fn message(&mut self, said: &Said, answer: &Answer, output: usize, padding: &str) {
        self.added(output, &message_item(said, answer, false));
        let place = Place { item: &said.message_id, output, part: Some("content_index") };
        let added = "response.content_part.added";
        self.opening(added, &place.event(added, json!({"part": part(said, "", false)})));
        let text = &answer.text;
        if said.refusal {
            self.deltas("response.refusal.delta", &place, text, &answer.pieces, padding);
            let done = "response.refusal.done";
            self.opening(done, &place.event(done, json!({"refusal": text})));
        } else {
            let tail = format!(r#","logprobs":[]{padding}"#);
            self.deltas("response.output_text.delta", &place, text, &answer.pieces, &tail);
            for number in 0..said.citations {
                let name = "response.output_text.annotation.added";
                let rest = json!({"annotation_index": number, "annotation": citation(number, text)});
                self.opening(name, &place.event(name, rest));
            }
            let done = "response.output_text.done";
            self.opening(done, &place.event(done, json!({"text": text, "logprobs": []})));
        }
        let done = "response.content_part.done";
        self.opening(done, &place.event(done, json!({"part": part(said, text, true)})));
        self.done(output, &message_item(said, answer, true));
    }

    fn calls(&mut self, calls: &[Call], first: usize, padding: &str, interleave: bool) {
        let group = if interleave { calls.len().max(1) } else { 1 };
        let mut output = first;
        for group in calls.chunks(group) {
            let mut open = Vec::new();
            for (number, call) in group.iter().enumerate() {
                let place = Place { item: &call.item_id, output: output + number, part: None };
                self.added(place.output, &call_item(call, false));
                let name = match call.custom {
                    true => "response.custom_tool_call_input.delta",
                    false => "response.function_call_arguments.delta",
                };
                let template = self.template(name, &place, &call.arguments, padding);
                open.push((template, sized_spans(&call.arguments, ARGUMENT_BYTES)));
            }
            let longest = open.iter().map(|(_, pieces)| pieces.len()).max().unwrap_or(0);
            for at in 0..longest {
                for (template, pieces) in &open {
                    if let Some(piece) = pieces.get(at) {
                        self.events.push_delta(*template, *piece);
                    }
                }
            }
            for call in group {
                let place = Place { item: &call.item_id, output, part: None };
                let (name, member) = match call.custom {
                    true => ("response.custom_tool_call_input.done", "input"),
                    false => ("response.function_call_arguments.done", "arguments"),
                };
                self.opening(name, &place.event(name, json!({member: call.arguments, "name": call.name})));
                self.done(output, &call_item(call, true));
                output += 1;
            }
        }
    }
}
