//! Any provider that takes and gives JSON over HTTP, mapped by JSON pointers and a body template from the configuration.

use http::HeaderMap;
use serde_json::Value;

use super::notes::Notes;
use super::openai::request::{self, ChatForm, OPENAI};
use super::outbound::{Outbound, Serves};
use super::{Api, AuthKind, ReportedError, Target, UpstreamRequest};
use crate::config::{self, CredentialPlace, Generic as Mapping, GenericReply, GenericStream, Provider};
use crate::error::{Kind, Problem};
use crate::protocol::chat::{ChatEvent, ChatRequest, FinishReason, Message, PartBody, ReplyFault, Role};
use crate::protocol::frames::{EventReader, Framing, Lines, RawEvent, Sse, parse_json};
use crate::protocol::usage::Usage;

const PLACEHOLDERS: [&str; 12] = [
    "model",
    "messages",
    "prompt",
    "system",
    "last_user_message",
    "max_tokens",
    "temperature",
    "top_p",
    "stop",
    "stream",
    "user",
    "tools",
];

/// The dialect. Its mapping comes with the target.
#[derive(Debug)]
pub struct Generic;

impl Outbound for Generic {
    fn serves(&self, api: Api, _: Target<'_>) -> Serves {
        Serves::chat_translated(api)
    }

    fn translate(&self, chat: &ChatRequest, target: Target<'_>, notes: &mut Notes) -> Result<UpstreamRequest, Problem> {
        let mapping = mapping(target)?;
        let streams = chat.stream && mapping.stream.is_some();
        // What a template takes over as it stands is in OpenAI's form.
        let form = ChatForm { open_sampling: true, ..OPENAI };
        let openai = request::body(chat, target.upstream_model, &form, notes)?;
        let values = Values { chat, openai: &openai, model: target.upstream_model, stream: streams };
        let body = fill(&mapping.body, &values).unwrap_or(Value::Null);
        let accept = match mapping.stream.as_ref().map(|stream| stream.framing) {
            Some(config::Framing::Sse) if streams => "text/event-stream",
            Some(config::Framing::Ndjson) if streams => "application/x-ndjson",
            _ => "application/json",
        };
        leave_out(&openai, &mapping.body, notes)?;
        let path = mapping.path.replace("{{model}}", &path_encoded(target.upstream_model));
        let headers = vec![("accept".to_owned(), accept.to_owned())];
        Ok(UpstreamRequest { headers, ..UpstreamRequest::post(path, body.to_string().into_bytes()) })
    }

    fn framing(&self, target: Target<'_>) -> Box<dyn Framing> {
        let stream = stream_of(target);
        let done = stream.and_then(|stream| stream.done.as_deref()).unwrap_or_default();
        match stream.map(|stream| stream.framing) {
            Some(config::Framing::Ndjson) => Box::new(Lines::ending_with(done)),
            _ => Box::new(Sse::ending_with(done)),
        }
    }

    fn reader(&self, target: Target<'_>) -> Box<dyn EventReader> {
        Box::new(Reader { mapping: target.provider.generic.clone(), state: State::default() })
    }

    fn read_error(&self, status: u16, headers: &HeaderMap, body: &Value, provider: &Provider) -> ReportedError {
        let usual = super::openai::OpenAi.read_error(status, headers, body, provider);
        let Some(mapping) = &provider.generic else { return usual };
        ReportedError {
            message: text_at(body, mapping.error_message.as_deref()).or(usual.message),
            code: text_at(body, mapping.error_code.as_deref()).or(usual.code),
            ..usual
        }
    }

    fn auth(&self, provider: &Provider) -> AuthKind {
        match provider.generic.as_ref().map(|mapping| mapping.credential_header) {
            None | Some(CredentialPlace::Authorization) => AuthKind::Bearer,
            Some(CredentialPlace::XApiKey) => AuthKind::Header { name: "x-api-key" },
            Some(CredentialPlace::ApiKey) => AuthKind::Header { name: "api-key" },
        }
    }
}

/// A model's name as part of a path: its slashes stay, whatever else means something in a URL is escaped.
fn path_encoded(model: &str) -> String {
    let encode =
        |part: &str| url::form_urlencoded::byte_serialize(part.as_bytes()).collect::<String>().replace('+', "%20");
    model.split('/').map(encode).collect::<Vec<_>>().join("/")
}

fn stream_of(target: Target<'_>) -> Option<&GenericStream> {
    target.provider.generic.as_ref()?.stream.as_ref()
}

fn mapping(target: Target<'_>) -> Result<&Mapping, Problem> {
    target.provider.generic.as_ref().ok_or_else(|| {
        Problem::new(Kind::Unavailable, "provider_misconfigured", "The provider of this model has no mapping.")
    })
}

// === The request ===

struct Values<'a> {
    chat: &'a ChatRequest,
    openai: &'a Value,
    model: &'a str,
    stream: bool,
}

impl Values<'_> {
    fn get(&self, name: &str) -> Option<Value> {
        let chat = self.chat;
        match name {
            "model" => Some(self.model.into()),
            "messages" | "tools" | "temperature" | "top_p" | "user" => self.openai.get(name).cloned(),
            "prompt" => Some(transcript(chat).into()),
            "system" => {
                let text = texts(chat, |role| matches!(role, Role::System | Role::Developer)).join("\n\n");
                (!text.is_empty()).then(|| text.into())
            }
            "last_user_message" => texts(chat, |role| role == Role::User).pop().map(Value::from),
            "max_tokens" => chat.output.max_tokens.map(Value::from),
            "stop" => self.openai.get("stop").cloned(),
            "stream" => Some(self.stream.into()),
            _ => None,
        }
    }
}

/// What messages of these roles say; instructions that stand outside the conversation count as the system's.
fn texts(chat: &ChatRequest, wanted: impl Fn(Role) -> bool) -> Vec<String> {
    let outside = chat.instructions.iter().filter(|_| wanted(Role::System)).map(|part| part.text.clone());
    let wanted = chat.messages.iter().filter(|message| wanted(message.role));
    outside.chain(wanted.map(said)).filter(|text| !text.is_empty()).collect()
}

/// The text of a message, results of tools included.
fn said(message: &Message) -> String {
    let mut text = message.text();
    for part in &message.parts {
        if let PartBody::Result { parts, .. } = &part.body {
            text.extend(parts.iter().filter_map(|part| match &part.body {
                PartBody::Text { text, .. } => Some(text.as_str()),
                _ => None,
            }));
        }
    }
    text
}

/// The conversation as text: alone, the one message; otherwise each turn with its speaker, open for the answer.
fn transcript(chat: &ChatRequest) -> String {
    if let ([only], []) = (chat.messages.as_slice(), chat.instructions.as_slice()) {
        return said(only);
    }
    let outside = chat.instructions.iter().map(|part| format!("System: {}", part.text));
    let turns = chat.messages.iter().map(|message| {
        let speaker = match message.role {
            Role::System | Role::Developer => "System",
            Role::User => "User",
            Role::Assistant => "Assistant",
            Role::Tool => "Tool",
        };
        format!("{speaker}: {}", said(message))
    });
    let lines: Vec<String> = outside.chain(turns).chain(["Assistant:".to_owned()]).collect();
    lines.join("\n\n")
}

/// Fills a template in; `None` where it is one placeholder without a value.
fn fill(template: &Value, values: &Values<'_>) -> Option<Value> {
    match template {
        Value::String(text) => match whole_placeholder(text) {
            Some(name) => values.get(name),
            None => Some(fill_text(text, values).into()),
        },
        Value::Array(items) => Some(items.iter().filter_map(|item| fill(item, values)).collect::<Vec<_>>().into()),
        Value::Object(members) => Some(Value::Object(
            members.iter().filter_map(|(name, value)| Some((name.clone(), fill(value, values)?))).collect(),
        )),
        other => Some(other.clone()),
    }
}

fn whole_placeholder(text: &str) -> Option<&str> {
    let name = text.strip_prefix("{{")?.strip_suffix("}}")?;
    (!name.contains("{{")).then(|| name.trim())
}

/// Fills placeholders in once, from left to right: a caller's text that looks like a placeholder stays text.
fn fill_text(text: &str, values: &Values<'_>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, behind)) = after.split_once("}}") else { break };
        out.push_str(before);
        match values.get(name.trim()) {
            Some(Value::String(text)) => out.push_str(&text),
            Some(value) => out.push_str(&value.to_string()),
            None => {}
        }
        rest = behind;
    }
    out.push_str(rest);
    out
}

fn placeholders(template: &Value, found: &mut Vec<String>) {
    match template {
        Value::String(text) => {
            let names = text.split("{{").skip(1).filter_map(|rest| rest.split_once("}}"));
            found.extend(names.map(|(name, _)| name.trim().to_owned()));
        }
        Value::Array(items) => items.iter().for_each(|item| placeholders(item, found)),
        Value::Object(members) => members.values().for_each(|value| placeholders(value, found)),
        _ => {}
    }
}

/// The placeholders of a template that mean nothing.
pub fn unknown_placeholders(template: &Value) -> Vec<String> {
    let mut found = Vec::new();
    placeholders(template, &mut found);
    found.retain(|name| !PLACEHOLDERS.contains(&name.as_str()));
    found
}

/// The caller's parameters that the template has no place for are left out.
fn leave_out(openai: &Value, template: &Value, notes: &mut Notes) -> Result<(), Problem> {
    let mut used = Vec::new();
    placeholders(template, &mut used);
    let covers = |name: &str| {
        let name = if name == OPENAI.max_tokens { "max_tokens" } else { name };
        used.iter().any(|used| used == name)
    };
    let asked = openai.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    let is_own = |name: &&str| !matches!(*name, "model" | "messages" | "stream" | "stream_options");
    let mut left_out = asked.filter(is_own).filter(|name| !covers(name));
    left_out.try_for_each(|name| notes.drop_named(name))
}

// === The reply ===

/// Reads a reply into events by the provider's mapping.
struct Reader {
    mapping: Option<Mapping>,
    state: State,
}

/// The counts without those of the parts in those of the whole. No part is larger than its whole.
fn disjoint(told: Usage) -> Usage {
    let cache_read = told.cache_read.min(told.input);
    let uncached = told.input.saturating_sub(cache_read);
    let cache_write_5m = told.cache_write_5m.min(uncached);
    let output_reasoning = told.output_reasoning.min(told.output);
    Usage {
        input: uncached.saturating_sub(cache_write_5m),
        cache_read,
        cache_write_5m,
        output: told.output.saturating_sub(output_reasoning),
        output_reasoning,
        ..Usage::default()
    }
}

#[derive(Default)]
struct State {
    started: bool,
    finished: bool,
    done: bool,
    /// The counts as they were told last: those of parts within those of the whole.
    told: Usage,
}

impl State {
    fn take(&mut self, object: &Value, reply: &GenericReply, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        if !self.started {
            self.started = true;
            let id = text_at(object, reply.id.as_deref()).unwrap_or_default();
            out.push(ChatEvent::Start { id, model: String::new(), created: None });
        }
        if let Some(text) = text_at(object, reply.reasoning.as_deref()) {
            out.push(ChatEvent::Reasoning { choice: 0, text });
        }
        if let Some(text) = text_at(object, Some(&reply.text)) {
            out.push(ChatEvent::Text { choice: 0, text, logprobs: None });
        }
        let tokens = |pointer: &Option<String>| object.pointer(pointer.as_deref()?)?.as_u64();
        let told = [
            (&reply.input_tokens, &mut self.told.input),
            (&reply.output_tokens, &mut self.told.output),
            (&reply.cache_read_tokens, &mut self.told.cache_read),
            (&reply.cache_write_tokens, &mut self.told.cache_write_5m),
            (&reply.reasoning_tokens, &mut self.told.output_reasoning),
        ];
        let mut is_told = false;
        for (pointer, count) in told {
            if let Some(tokens) = tokens(pointer) {
                (*count, is_told) = (tokens, true);
            }
        }
        if is_told {
            out.push(ChatEvent::Usage(disjoint(self.told)));
        }
        if let Some(word) = text_at(object, reply.finish_reason.as_deref()) {
            self.finished = true;
            let word = reply.finish_reasons.get(&word).unwrap_or(&word);
            if FinishReason::is_failure(word) {
                return Err(ReplyFault::failed_finish(word));
            }
            out.push(ChatEvent::Finish { choice: 0, reason: FinishReason::from_openai(word) });
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<ChatEvent>) {
        if !std::mem::replace(&mut self.finished, true) {
            out.push(ChatEvent::Finish { choice: 0, reason: FinishReason::Stop });
        }
    }
}

impl EventReader for Reader {
    fn event(&mut self, event: &RawEvent<'_>, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        let Self { mapping, state } = self;
        let Some(stream) = mapping.as_ref().and_then(|mapping| mapping.stream.as_ref()) else { return Ok(()) };
        let data = event.data.trim_ascii();
        if data.is_empty() {
            return Ok(());
        }
        if stream.done.as_ref().is_some_and(|done| done.as_bytes() == data) {
            state.done = true;
            return Ok(());
        }
        let object = parse_json(data)?;
        if let Some(message) = text_at(&object, stream.error_message.as_deref()) {
            return Err(ReplyFault::Reported { message, code: None });
        }
        state.take(&object, &stream.reply, out)
    }

    fn whole(&mut self, body: &Value, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        let Some(mapping) = &self.mapping else { return Err(ReplyFault::Malformed("it has no mapping".to_owned())) };
        if let Some(message) = text_at(body, mapping.error_message.as_deref()) {
            return Err(ReplyFault::Reported { message, code: text_at(body, mapping.error_code.as_deref()) });
        }
        if body.pointer(&mapping.reply.text).is_none_or(|text| !text.is_string()) {
            return Err(ReplyFault::Malformed(format!("it has no text at `{}`", mapping.reply.text)));
        }
        self.state.take(body, &mapping.reply, out)?;
        self.state.finish(out);
        Ok(())
    }

    fn ended(&mut self, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        if self.state.done && self.state.started {
            self.state.finish(out);
        }
        if self.state.finished { Ok(()) } else { Err(ReplyFault::Truncated) }
    }
}

/// A text or number at a pointer, if it is there and not empty.
fn text_at(value: &Value, pointer: Option<&str>) -> Option<String> {
    match value.pointer(pointer?)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::frames::MAX_EVENT_BYTES;
    use crate::protocol::inbound::{Inbound as _, chat::Chat};
    use crate::providers::outbound::{decode_body, decoder, translated};
    use crate::providers::{StandIns, usage_of};
    use serde_json::json;

    fn provider(mapping: &Value) -> Provider {
        let provider = json!({"dialect": "generic", "base_url": "https://g.example", "generic": mapping});
        serde_json::from_value(provider).unwrap()
    }

    fn target(provider: &Provider) -> Target<'_> {
        let structured_output = crate::config::StructuredOutput::Native;
        Target {
            provider,
            upstream_model: "org/the model",
            max_output_tokens: 100,
            structured_output,
            strict_params: false,
        }
    }

    fn request(mapping: &Value, body: &Value) -> Result<UpstreamRequest, Problem> {
        let chat = Chat.read(body.to_string().as_bytes())?;
        translated(&Generic, target(&provider(mapping)), &chat)
    }

    /// The body that a template becomes for a request.
    fn filled(template: Value, body: &Value) -> Value {
        let request = request(&json!({"body": template, "reply": {"text": "/t"}}), body).unwrap();
        serde_json::from_slice(&request.body).unwrap()
    }

    fn question(text: &str) -> Value {
        json!({"model": "m", "messages": [{"role": "user", "content": text}]})
    }

    // === Requests ===

    #[test]
    fn a_string_that_is_one_placeholder_becomes_the_value_itself() {
        let body = json!({
            "model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": 0.5, "stop": "x",
            "max_completion_tokens": 3, "tools": [{"type": "function", "function": {"name": "f"}}],
        });
        let template = json!({
            "m": "{{model}}", "t": "{{temperature}}", "s": "{{ stop }}", "n": "{{max_tokens}}", "tools": "{{tools}}",
            "in": {"messages": "{{messages}}", "stream": "{{stream}}"}, "fixed": [1, null, true],
        });
        assert_eq!(
            filled(template, &body),
            json!({
                "m": "org/the model", "t": 0.5, "s": ["x"], "n": 3, "tools": body["tools"],
                "in": {"messages": body["messages"], "stream": false}, "fixed": [1, null, true],
            })
        );
    }

    #[test]
    fn members_and_items_without_a_value_are_left_out() {
        let template =
            json!({"t": "{{temperature}}", "list": ["{{user}}", "a"], "text": "as {{user}}!", "sys": "{{system}}"});
        assert_eq!(filled(template, &question("hi")), json!({"list": ["a"], "text": "as !"}));
        let mut asked = question("hi");
        asked["temperature"] = Value::Null;
        assert_eq!(filled(json!({"t": "{{temperature}}"}), &asked), json!({}));
    }

    #[test]
    fn what_a_caller_writes_is_never_taken_for_a_placeholder() {
        let text = "{{model}} }} {{ \"}";
        let template = json!({"whole": "{{prompt}}", "within": "<{{last_user_message}}|{{model}}>", "open": "{{model"});
        assert_eq!(
            filled(template, &question(text)),
            json!({"whole": text, "within": format!("<{text}|org/the model>"), "open": "{{model"})
        );
    }

    #[test]
    fn the_conversation_can_be_given_as_text() {
        let body = json!({"model": "m", "messages": [
            {"role": "system", "content": "S"}, {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": null}, {"role": "developer", "content": "D"}, {"role": "user", "content": "c"},
        ]});
        let got = filled(json!({"p": "{{prompt}}", "s": "{{system}}", "u": "{{last_user_message}}"}), &body);
        assert_eq!(got["p"], "System: S\n\nUser: ab\n\nAssistant: \n\nSystem: D\n\nUser: c\n\nAssistant:");
        assert_eq!((&got["s"], &got["u"]), (&json!("S\n\nD"), &json!("c")));
        assert_eq!(filled(json!({"p": "{{prompt}}"}), &question("alone"))["p"], "alone");
    }

    #[test]
    fn path_and_accept_follow_the_mapping_and_what_has_no_place_is_listed() {
        let mapping = json!({
            "path": "/run/{{model}}?v=1", "body": {"p": "{{prompt}}", "n": "{{max_tokens}}"}, "reply": {"text": "/t"},
            "stream": {"framing": "ndjson", "reply": {"text": "/t"}, "done": "END"},
        });
        let mut body = question("hi");
        body["stream"] = true.into();
        body["max_completion_tokens"] = 5.into();
        body["temperature"] = 1.into();
        body["seed"] = Value::Null;
        let request = request(&mapping, &body).unwrap();
        assert_eq!(request.path, "/run/org/the%20model?v=1");
        assert_eq!(request.headers, [("accept".to_owned(), "application/x-ndjson".to_owned())]);
        assert_eq!(request.dropped_params, ["temperature"]);
    }

    #[test]
    fn a_request_of_the_wrong_type_is_refused_by_name() {
        let mapping = json!({"body": {"p": "{{prompt}}"}, "reply": {"text": "/t"}});
        let wrong = json!({"model": "m", "messages": [{"role": "user", "content": 5}]});
        assert_eq!(request(&mapping, &wrong).unwrap_err().param.as_deref(), Some("messages[0].content"));
        let empty = json!({"model": "m", "messages": []});
        assert_eq!(request(&mapping, &empty).unwrap_err().param.as_deref(), Some("messages"));
    }

    #[test]
    fn placeholders_that_mean_nothing_are_found_in_a_template() {
        let template = json!({"a": "{{model}}", "b": ["x {{nonsense}} {{ user }}"], "c": {"d": "{{Model}}"}});
        assert_eq!(unknown_placeholders(&template), ["nonsense", "Model"]);
    }

    // === Replies ===

    fn reply_mapping() -> Value {
        json!({
            "body": {}, "reply": {
                "text": "/out/0/text", "id": "/id", "reasoning": "/why", "finish_reason": "/end",
                "finish_reasons": {"cut": "length", "crash": "error"}, "input_tokens": "/n/in", "output_tokens": "/n/out",
            },
            "error_message": "/fault/say", "error_code": "/fault/no",
        })
    }

    fn body_events(body: Value) -> Result<Vec<ChatEvent>, ReplyFault> {
        decode_body(&Generic, target(&provider(&reply_mapping())), &StandIns::default(), body.to_string().as_bytes())
    }

    #[test]
    fn parts_of_the_usage_are_told_apart() {
        let mut mapping = reply_mapping();
        let reply = mapping["reply"].as_object_mut().unwrap();
        for (name, pointer) in
            [("cache_read_tokens", "/n/read"), ("cache_write_tokens", "/n/wrote"), ("reasoning_tokens", "/n/thought")]
        {
            reply.insert(name.into(), pointer.into());
        }
        let provider = provider(&mapping);
        let counted = |counts: Value| {
            let body = json!({"out": [{"text": "x"}], "end": "stop", "n": counts}).to_string();
            let events = decode_body(&Generic, target(&provider), &StandIns::default(), body.as_bytes()).unwrap();
            let usage = usage_of(&events).unwrap().usage;
            [usage.input, usage.cache_read, usage.cache_write_5m, usage.output, usage.output_reasoning]
        };
        let all = json!({"in": 100, "read": 60, "wrote": 30, "out": 50, "thought": 20});
        assert_eq!(counted(all), [10, 60, 30, 30, 20]);
        assert_eq!(counted(json!({"in": 100, "out": 50})), [100, 0, 0, 50, 0]);
        let absurd = json!({"in": 10, "read": 60, "wrote": 30, "out": 5, "thought": 20});
        assert_eq!(counted(absurd), [0, 10, 0, 0, 5]);
    }

    #[test]
    fn a_whole_reply_is_read_at_its_pointers() {
        let body = json!({"id": 7, "out": [{"text": "hello"}], "why": "hm", "end": "cut", "n": {"in": 3, "out": 2}});
        assert_eq!(
            body_events(body).unwrap(),
            [
                ChatEvent::Start { id: "7".into(), model: String::new(), created: None },
                ChatEvent::Reasoning { choice: 0, text: "hm".into() },
                ChatEvent::Text { choice: 0, text: "hello".into(), logprobs: None },
                ChatEvent::Usage(Usage { input: 3, output: 2, ..Usage::default() }),
                ChatEvent::Finish { choice: 0, reason: FinishReason::Length },
            ]
        );
        let events = body_events(json!({"out": [{"text": ""}]})).unwrap();
        assert_eq!(events.last(), Some(&ChatEvent::Finish { choice: 0, reason: FinishReason::Stop }));
    }

    #[test]
    fn an_error_or_a_reply_without_text_is_no_success() {
        let fault = ReplyFault::Reported { message: "no".into(), code: Some("42".into()) };
        assert_eq!(body_events(json!({"fault": {"say": "no", "no": 42}, "out": [{"text": "x"}]})), Err(fault));
        for body in [json!({}), json!({"out": [{"text": 5}]}), json!([]), json!(null)] {
            assert!(matches!(body_events(body), Err(ReplyFault::Malformed(_))));
        }
        let crashed = body_events(json!({"out": [{"text": "x"}], "end": "crash"}));
        assert!(matches!(crashed, Err(ReplyFault::Reported { .. })));
        let decoded = Generic.read_error(
            400,
            &HeaderMap::new(),
            &json!({"fault": {"say": "no", "no": 42}}),
            &provider(&reply_mapping()),
        );
        assert_eq!((decoded.message.as_deref(), decoded.code.as_deref()), (Some("no"), Some("42")));
        let usual = Generic.read_error(
            400,
            &HeaderMap::new(),
            &json!({"error": {"message": "m", "type": "t"}}),
            &provider(&reply_mapping()),
        );
        assert_eq!((usual.message.as_deref(), usual.code.as_deref()), (Some("m"), Some("t")));
    }

    /// Decodes a stream, fed in pieces of this many bytes: its text, whether it finished, and the result.
    fn stream(
        framing: &str,
        done: Option<&str>,
        text: &str,
        piece: usize,
    ) -> (String, Option<FinishReason>, Result<(), ReplyFault>) {
        let mut mapping = json!({"body": {}, "reply": {"text": "/t"}, "stream": {
            "framing": framing, "reply": {"text": "/t", "finish_reason": "/end"}, "error_message": "/bad",
        }});
        mapping["stream"]["done"] = done.into();
        let provider = provider(&mapping);
        let mut decoder = decoder(&Generic, target(&provider), &StandIns::default());
        let mut out = Vec::new();
        let mut result = text.as_bytes().chunks(piece).try_for_each(|piece| decoder.push(piece, &mut out));
        if result.is_ok() {
            result = decoder.finish(&mut out);
        }
        let mut said = String::new();
        let mut finish = None;
        for event in out {
            match event {
                ChatEvent::Text { text, .. } => said.push_str(&text),
                ChatEvent::Finish { reason, .. } => finish = Some(reason),
                _ => {}
            }
        }
        (said, finish, result)
    }

    #[test]
    fn streams_are_read_in_either_framing_wherever_they_are_cut() {
        let sse = "data: {\"t\":\"hé\"}\n\n: note\n\ndata: {\"t\":\"llo\"}\n\ndata: END\n\n";
        let ndjson = "{\"t\":\"hé\"}\r\n\n{\"t\":\"llo\"}\nEND";
        let good = ("héllo".to_owned(), Some(FinishReason::Stop), Ok(()));
        for piece in [1, 2, 3, 7, 1000] {
            assert_eq!(stream("sse", Some("END"), sse, piece), good);
            assert_eq!(stream("ndjson", Some("END"), ndjson, piece), good);
            assert_eq!(stream("ndjson", Some("END"), &format!("{ndjson}\n"), piece), good);
        }
    }

    #[test]
    fn a_finish_reason_ends_a_stream_that_has_no_end_mark() {
        let text = "{\"t\":\"a\",\"end\":\"\"}\n{\"end\":\"length\"}";
        assert_eq!(stream("ndjson", None, text, 4), ("a".into(), Some(FinishReason::Length), Ok(())));
    }

    #[test]
    fn a_stream_without_an_end_is_truncated() {
        for text in ["", "{\"t\":\"a\"}\n", "{\"t\":\"a\"}\n{\"t\":", "{\"t\":\"a\"}\nEN"] {
            assert_eq!(stream("ndjson", Some("END"), text, 5).2, Err(ReplyFault::Truncated), "{text}");
        }
        assert_eq!(stream("sse", None, "data: {\"t\":\"a\"}\n\ndata: {\"end\":\"st", 5).2, Err(ReplyFault::Truncated));
        // An end mark alone is no reply.
        assert_eq!(stream("ndjson", Some("END"), "END\n", 5).2, Err(ReplyFault::Truncated));
    }

    #[test]
    fn an_error_within_a_stream_and_what_is_no_json_end_it() {
        let fault = ReplyFault::Reported { message: "broke".into(), code: None };
        assert_eq!(stream("ndjson", None, "{\"t\":\"a\"}\n{\"bad\":\"broke\"}\n", 9), ("a".into(), None, Err(fault)));
        assert!(matches!(stream("ndjson", None, "<html>\n", 9).2, Err(ReplyFault::Malformed(_))));
        assert!(matches!(stream("sse", None, "data: {\"end\":\"error\"}\n\n", 9).2, Err(ReplyFault::Reported { .. })));
    }

    #[test]
    fn a_line_over_the_bound_is_refused() {
        let mapping = json!({"body": {}, "reply": {"text": "/t"}, "stream": {"framing": "ndjson", "reply": {"text": "/t"}, "done": "END"}});
        let provider = provider(&mapping);
        let mut decoder = decoder(&Generic, target(&provider), &StandIns::default());
        let piece = vec![b'x'; MAX_EVENT_BYTES];
        assert_eq!(decoder.push(&piece, &mut Vec::new()), Ok(()));
        assert!(matches!(decoder.push(b"x", &mut Vec::new()), Err(ReplyFault::Malformed(_))));
    }
}
