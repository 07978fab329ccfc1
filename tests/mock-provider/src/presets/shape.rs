//! What the providers' replies have of their own. OpenAI's reply is made first, and then turned into theirs.

use serde_json::{Value, json};

use super::Preset;
use crate::directives::Directives;
use crate::openai::{Said, mid_stream_error};
use crate::reply::{ApiError, put};
use crate::server::App;
use crate::wire::{Event, EventStream, Kind};

/// One thing that a provider's replies have of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Usage stands in the last chunk, asked for or not.
    UsageAlways,
    /// Usage stands in the last choice.
    UsageInChoice,
    /// The last piece of text comes with the reason to finish.
    FinishWithText,
    /// Calls come in one piece.
    CallsWhole,
    /// Ids of calls are nine letters and digits.
    CallIds9,
    /// Ids of calls are the same in every reply.
    CallIdsAgain,
    /// Reasoning stands in this member; `think` for tags in the text.
    Reasoning(&'static str),
    /// Reasoning stands in parts of the content.
    ThinkingParts,
    /// The reason to finish that `finish` names has another name.
    Finish(&'static str, &'static str),
    DeepSeekUsage,
    MoonshotUsage,
    XaiUsage,
    Groq,
    OpenRouter,
    Perplexity,
    Qianfan,
    TimeInfo,
}

/// Groq's refusal of what its model made of a tool.
pub(super) fn groq_malformed() -> ApiError {
    ApiError::invalid("Failed to call a function. Please adjust your prompt. See 'failed_generation' for more details.")
        .code("tool_use_failed")
}

fn citations(directives: &Directives) -> Vec<String> {
    (1..=directives.citations.unwrap_or(2)).map(|number| format!("https://example.com/{number}")).collect()
}

/// Where in a reply a value stands.
#[derive(Debug, Clone, Copy)]
struct Moment {
    /// `delta` of a chunk or `message` of a whole reply.
    member: &'static str,
    first: bool,
    last: bool,
    /// Content events so far.
    content: u64,
}

impl Preset {
    /// Changes what is said before it is written.
    pub(super) fn reword(&self, app: &App, said: &mut Said<'_>) {
        for (number, call) in said.calls.iter_mut().enumerate() {
            if self.replies.contains(&Shape::CallIds9) {
                call.id = app.id("", 9);
            }
            if self.replies.contains(&Shape::CallIdsAgain) {
                call.id = format!("call_{number}");
            }
            if self.replies.contains(&Shape::CallsWhole) {
                call.pieces = vec![(0, u32::try_from(call.arguments.len()).unwrap_or(u32::MAX))];
            }
        }
    }

    /// Turns OpenAI's whole reply into the provider's.
    pub(super) fn reshape_whole(&self, whole: &mut Value, said: &Said<'_>, directives: &Directives) {
        let moment = Moment { member: "message", first: true, last: true, content: 0 };
        for shape in self.replies {
            shape.apply(whole, moment, said, directives);
        }
    }

    /// Turns OpenAI's chunks into the provider's.
    pub(super) fn events(&self, stream: EventStream, said: &Said<'_>, directives: &Directives) -> EventStream {
        let mut written = expand(&stream);
        if self.replies.contains(&Shape::FinishWithText) {
            join_finish(&mut written);
        }
        let finish = written.iter().rposition(|(kind, _)| *kind == Kind::Finish);
        let groq = self.replies.contains(&Shape::Groq);
        let error = self.mid_stream(directives);
        let mut events =
            EventStream::new(stream.framing, Event::fixed(Kind::Done, groq.then_some("error"), error.to_string()));
        let mut content = 0;
        for (at, (kind, data)) in written.into_iter().enumerate() {
            let Ok(mut chunk) = serde_json::from_str::<Value>(&data) else {
                events.push(kind, None, data);
                continue;
            };
            content += u64::from(kind == Kind::Content);
            let moment = Moment { member: "delta", first: at == 0, last: Some(at) == finish, content };
            for shape in self.replies {
                shape.apply(&mut chunk, moment, said, directives);
            }
            if groq && directives.malformed_call && moment.last {
                let error = json!({"error": {
                    "message": groq_malformed().message, "type": "invalid_request_error", "code": "tool_use_failed",
                    "failed_generation": "<function=", "status_code": 400,
                }});
                events.push(kind, Some("error"), error.to_string());
                return events;
            }
            events.push(kind, None, chunk.to_string());
            if directives.two_usage && moment.last && chunk.get("usage").is_some_and(Value::is_object) {
                put(&mut chunk, "choices", json!([]));
                events.push(Kind::Usage, None, chunk.to_string());
            }
        }
        events
    }

    /// What the provider says when it fails in the middle.
    fn mid_stream(&self, directives: &Directives) -> Value {
        let error = mid_stream_error(directives);
        if self.replies.contains(&Shape::OpenRouter) {
            return json!({
                "id": "gen-mock", "object": "chat.completion.chunk", "provider": "Mock",
                "error": {"code": error.status, "message": error.message},
                "choices": [{
                    "index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": "error",
                    "native_finish_reason": "error",
                }],
            });
        }
        let mut body = self.errors.body(&error);
        if self.replies.contains(&Shape::Groq)
            && let Some(error) = body.get_mut("error")
        {
            put(error, "status_code", json!(500));
        }
        body
    }
}

/// The events of a stream, each written out.
fn expand(stream: &EventStream) -> Vec<(Kind, String)> {
    let written = |event: &Event| match event {
        Event::Fixed { kind, data, .. } => Some((*kind, data.clone())),
        Event::Delta { template, from, to } => {
            let template = stream.templates.get(*template)?;
            let part = template.source.get(*from as usize..*to as usize)?;
            Some((Kind::Content, format!("{}{}{}", template.head, json!(part), template.tail)))
        }
        Event::Failure { .. } => None,
    };
    stream.events.iter().filter_map(written).collect()
}

/// Puts the last piece of text into the event that finishes.
fn join_finish(written: &mut Vec<(Kind, String)>) {
    let Some(at) = written.iter().position(|(kind, _)| *kind == Kind::Finish) else { return };
    let Some((Kind::Content, piece)) = at.checked_sub(1).and_then(|before| written.get(before)) else { return };
    let Ok(piece) = serde_json::from_str::<Value>(piece) else { return };
    let Some(text) = piece.pointer("/choices/0/delta/content") else { return };
    if let Some((_, finish)) = written.get_mut(at)
        && let Ok(mut event) = serde_json::from_str::<Value>(finish)
        && let Some(delta) = event.pointer_mut("/choices/0/delta")
    {
        put(delta, "content", text.clone());
        *finish = event.to_string();
        written.remove(at - 1);
    }
}

impl Shape {
    fn apply(self, reply: &mut Value, moment: Moment, said: &Said<'_>, directives: &Directives) {
        match self {
            Self::UsageAlways | Self::FinishWithText | Self::CallsWhole | Self::CallIds9 | Self::CallIdsAgain => {}
            Self::UsageInChoice => {
                // Only streams have it there.
                if moment.member == "delta"
                    && moment.last
                    && let Some(usage) = take(reply, "usage")
                {
                    each_choice(reply, |choice| put(choice, "usage", usage.clone()));
                }
            }
            Self::Reasoning("think") => each_choice(reply, |choice| thinking_tags(choice, moment, said)),
            Self::Reasoning(name) => {
                each_choice(reply, |choice| {
                    if let Some(message) = choice.get_mut(moment.member)
                        && let Some(text) = take(message, "reasoning_content")
                    {
                        put(message, name, text);
                    }
                });
            }
            Self::ThinkingParts => each_choice(reply, |choice| thinking_parts(choice, moment)),
            Self::Finish(asked, name) => {
                each_choice(reply, |choice| {
                    let reason = choice.get("finish_reason").and_then(Value::as_str);
                    if reason == Some(asked) {
                        put(choice, "finish_reason", json!(name));
                    }
                });
            }
            Self::DeepSeekUsage => usage(reply, |usage| {
                let cached = said.usage.cached;
                put(usage, "prompt_cache_hit_tokens", json!(cached));
                put(usage, "prompt_cache_miss_tokens", json!(said.usage.prompt.saturating_sub(cached)));
            }),
            Self::MoonshotUsage => {
                usage(reply, |usage| put(usage, "cached_tokens", json!(said.usage.cached)));
                each_choice(reply, |choice| {
                    usage(choice, |usage| put(usage, "cached_tokens", json!(said.usage.cached)))
                });
            }
            Self::XaiUsage => usage(reply, |usage| {
                // Reasoning is counted beside the completion.
                let spoken = said.usage.completion.saturating_sub(said.usage.reasoning);
                put(usage, "completion_tokens", json!(spoken));
                put(usage, "num_sources_used", json!(0));
                put(usage, "cost_in_usd_ticks", json!(said.usage.completion.saturating_mul(5000)));
            }),
            Self::Groq => {
                if let Some(usage) = reply.get("usage").filter(|usage| usage.is_object()).cloned() {
                    put(reply, "x_groq", json!({"id": "req_mock", "usage": usage}));
                } else if moment.first {
                    put(reply, "x_groq", json!({"id": "req_mock"}));
                }
                drop_null_usage(reply);
            }
            Self::OpenRouter => open_router(reply, moment, said),
            Self::Perplexity => perplexity(reply, moment, said, directives),
            Self::Qianfan => each_choice(reply, |choice| {
                let flag = if directives.block { 4 } else { 0 };
                put(choice, "flag", json!(flag));
                if directives.block {
                    put(choice, "need_clear_history", json!(true));
                    put(choice, "ban_round", json!(-1));
                    if moment.last {
                        put(choice, "finish_reason", json!("content_filter"));
                    }
                }
            }),
            Self::TimeInfo => {
                if moment.last {
                    put(reply, "time_info", json!({"queue_time": 0.001, "prompt_time": 0.001, "total_time": 0.01}));
                }
            }
        }
    }
}

fn take(object: &mut Value, name: &str) -> Option<Value> {
    object.as_object_mut()?.remove(name).filter(|value| !value.is_null())
}

fn each_choice(reply: &mut Value, change: impl FnMut(&mut Value)) {
    reply.get_mut("choices").and_then(Value::as_array_mut).into_iter().flatten().for_each(change);
}

fn usage(reply: &mut Value, change: impl FnOnce(&mut Value)) {
    if let Some(usage) = reply.get_mut("usage").filter(|usage| usage.is_object()) {
        change(usage);
    }
}

fn drop_null_usage(reply: &mut Value) {
    if reply.get("usage").is_some_and(Value::is_null) {
        take(reply, "usage");
    }
}

/// Reasoning as the first part of the content.
fn thinking_parts(choice: &mut Value, moment: Moment) {
    let Some(message) = choice.get_mut(moment.member) else { return };
    let Some(text) = take(message, "reasoning_content") else { return };
    let thinking = json!({"type": "thinking", "thinking": [{"type": "text", "text": text}]});
    let mut parts = vec![thinking];
    if let Some(answer) = message.get("content").and_then(Value::as_str).filter(|text| !text.is_empty()) {
        parts.push(json!({"type": "text", "text": answer}));
    }
    put(message, "content", Value::Array(parts));
}

/// Reasoning in tags before the text.
fn thinking_tags(choice: &mut Value, moment: Moment, said: &Said<'_>) {
    let Some(reasoning) = &said.reasoning else { return };
    let Some(message) = choice.get_mut(moment.member) else { return };
    let thought = take(message, "reasoning_content");
    let pieces = u64::try_from(reasoning.pieces.len()).unwrap_or(u64::MAX);
    let content = message.get("content").and_then(Value::as_str).unwrap_or_default();
    let text = match (moment.member, thought.as_ref().and_then(Value::as_str)) {
        ("message", Some(thought)) => format!("<think>\n{thought}\n</think>\n\n{content}"),
        (_, Some(thought)) => {
            let open = if moment.content == 1 { "<think>\n" } else { "" };
            let close = if moment.content == pieces { "\n</think>\n\n" } else { "" };
            format!("{open}{thought}{close}")
        }
        _ => return,
    };
    put(message, "content", json!(text));
}

fn open_router(reply: &mut Value, moment: Moment, said: &Said<'_>) {
    put(reply, "provider", json!("Mock"));
    each_choice(reply, |choice| {
        let reason = choice.get("finish_reason").cloned().unwrap_or_default();
        put(choice, "native_finish_reason", reason);
        if let Some(message) = choice.get_mut(moment.member) {
            let details = match message.get("reasoning").and_then(Value::as_str) {
                Some(text) => json!([{"type": "reasoning.text", "text": text, "index": 0, "format": null}]),
                None => return,
            };
            put(message, "reasoning_details", details);
        }
    });
    usage(reply, |usage| {
        put(usage, "cost", json!(said.usage.completion as f64 / 1e6));
        put(usage, "is_byok", json!(false));
    });
    drop_null_usage(reply);
}

fn perplexity(reply: &mut Value, moment: Moment, said: &Said<'_>, directives: &Directives) {
    let links = citations(directives);
    let results: Vec<Value> = links.iter().map(|link| json!({"title": "Source", "url": link, "date": null})).collect();
    put(reply, "citations", json!(links));
    put(reply, "search_results", Value::Array(results));
    let (prompt, completion) = (said.usage.prompt, said.usage.completion);
    if moment.member == "delta" && !directives.no_usage {
        let so_far = if moment.last { completion } else { moment.content.min(completion) };
        let total = prompt.saturating_add(so_far);
        put(reply, "usage", json!({"prompt_tokens": prompt, "completion_tokens": so_far, "total_tokens": total}));
    }
    if moment.last {
        if moment.member == "delta" {
            put(reply, "object", json!("chat.completion.done"));
        }
        usage(reply, |usage| {
            put(usage, "search_context_size", json!("low"));
            put(usage, "num_search_queries", json!(1));
            put(usage, "cost", json!({"total_cost": completion as f64 / 1e6}));
        });
    }
    each_choice(reply, |choice| {
        // Beside the delta stands what has been said so far, in the last chunk all of it.
        if moment.member == "delta" && moment.last {
            let text = said.answers.first().map(|answer| answer.text.clone()).unwrap_or_default();
            put(choice, "message", json!({"role": "assistant", "content": text}));
        }
    });
}
