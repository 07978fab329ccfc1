//! Any provider that takes and gives JSON over HTTP, mapped by JSON pointers and a body template from the configuration.

use serde_json::{Map, Value};

use super::{Adapter, Api, CredentialHeader, ReportedError, Source, Target, UpstreamRequest, bearer};
use crate::config::{CredentialPlace, Framing, Generic as Mapping, GenericReply, GenericStream, Provider};
use crate::error::{Kind, Problem};
use crate::protocol::old_chat::{
    ChatEvent, ChatRequest, FinishReason, ReplyDecoder, ReplyFault, Role, Stop, tellable_names,
};
use crate::protocol::openai_chat::MAX_EVENT_BYTES;
use crate::protocol::sse::SseDecoder;
use crate::protocol::usage::Usage;
use crate::secret::Secret;

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

impl Adapter for Generic {
    fn chat_request(&self, source: &Source<'_>, target: Target<'_>) -> Result<UpstreamRequest, Problem> {
        let mapping = mapping(target)?;
        let chat = source.parse_chat()?;
        if chat.messages.is_empty() {
            return Err(Problem::invalid("messages", "messages: must have at least one message."));
        }
        let raw: Map<String, Value> = serde_json::from_slice(source.body)
            .map_err(|error| Problem::invalid("", format!("the body could not be read: {error}")))?;
        let streams = chat.stream && mapping.stream.is_some();
        let values = Values { chat: &chat, raw: &raw, model: target.upstream_model, stream: streams };
        let body = fill(&mapping.body, &values).unwrap_or(Value::Null);
        let accept = match mapping.stream.as_ref().map(|stream| stream.framing) {
            Some(Framing::Sse) if streams => "text/event-stream",
            Some(Framing::Ndjson) if streams => "application/x-ndjson",
            _ => "application/json",
        };
        Ok(UpstreamRequest {
            path: mapping.path.replace("{{model}}", &path_encoded(target.upstream_model)),
            headers: vec![("accept".to_owned(), accept.to_owned())],
            body: body.to_string().into_bytes(),
            dropped_params: dropped(&raw, &mapping.body),
        })
    }

    fn speaks(&self, _: Api) -> bool {
        false
    }

    fn decode_body(&self, body: &[u8], target: Target<'_>) -> Result<Vec<ChatEvent>, ReplyFault> {
        let mapping = mapping(target).map_err(|problem| ReplyFault::Malformed(problem.message))?;
        let body: Value = serde_json::from_slice(body).map_err(|error| ReplyFault::Malformed(error.to_string()))?;
        if let Some(message) = text_at(&body, mapping.error_message.as_deref()) {
            return Err(ReplyFault::Reported { message, code: text_at(&body, mapping.error_code.as_deref()) });
        }
        if body.pointer(&mapping.reply.text).is_none_or(|text| !text.is_string()) {
            return Err(ReplyFault::Malformed(format!("it has no text at `{}`", mapping.reply.text)));
        }
        let mut state = ReplyState::default();
        let mut events = Vec::new();
        state.take(&body, &mapping.reply, &mut events)?;
        if !state.finished {
            events.push(ChatEvent::Finish { choice: 0, reason: FinishReason::Stop });
        }
        Ok(events)
    }

    fn stream_decoder(&self, target: Target<'_>) -> Box<dyn ReplyDecoder> {
        let stream = target.provider.generic.as_ref().and_then(|mapping| mapping.stream.clone());
        Box::new(Decoder { stream, splitter: None, state: ReplyState::default(), done: false })
    }

    fn decode_error(&self, body: &Value, provider: &Provider) -> ReportedError {
        let usual = super::openai::OpenAi.decode_error(body, provider);
        let Some(mapping) = &provider.generic else { return usual };
        ReportedError {
            message: text_at(body, mapping.error_message.as_deref()).or(usual.message),
            code: text_at(body, mapping.error_code.as_deref()).or(usual.code),
            param: usual.param,
        }
    }

    fn credential_header(&self, credential: &Secret<String>, provider: &Provider) -> CredentialHeader {
        let plain = |name| CredentialHeader { name, value: credential.clone() };
        match provider.generic.as_ref().map(|mapping| mapping.credential_header) {
            None | Some(CredentialPlace::Authorization) => bearer(credential),
            Some(CredentialPlace::XApiKey) => plain("x-api-key"),
            Some(CredentialPlace::ApiKey) => plain("api-key"),
        }
    }
}

/// A model's name as part of a path: its slashes stay, whatever else means something in a URL is escaped.
fn path_encoded(model: &str) -> String {
    let encode =
        |part: &str| url::form_urlencoded::byte_serialize(part.as_bytes()).collect::<String>().replace('+', "%20");
    model.split('/').map(encode).collect::<Vec<_>>().join("/")
}

fn mapping(target: Target<'_>) -> Result<&Mapping, Problem> {
    target.provider.generic.as_ref().ok_or_else(|| {
        Problem::new(Kind::Unavailable, "provider_misconfigured", "The provider of this model has no mapping.")
    })
}

// === The request ===

struct Values<'a> {
    chat: &'a ChatRequest,
    raw: &'a Map<String, Value>,
    model: &'a str,
    stream: bool,
}

impl Values<'_> {
    fn get(&self, name: &str) -> Option<Value> {
        let chat = self.chat;
        match name {
            "model" => Some(self.model.into()),
            "messages" | "tools" | "temperature" | "top_p" | "user" => {
                self.raw.get(name).filter(|value| !value.is_null()).cloned()
            }
            "prompt" => Some(transcript(chat).into()),
            "system" => {
                let text = texts(chat, |role| matches!(role, Role::System | Role::Developer)).join("\n\n");
                (!text.is_empty()).then(|| text.into())
            }
            "last_user_message" => texts(chat, |role| role == Role::User).pop().map(Value::from),
            "max_tokens" => chat.output_limit().map(Value::from),
            "stop" => chat.stop.as_ref().map(|stop| match stop {
                Stop::One(text) => vec![text.clone()].into(),
                Stop::Many(texts) => texts.clone().into(),
            }),
            "stream" => Some(self.stream.into()),
            _ => None,
        }
    }
}

fn texts(chat: &ChatRequest, wanted: impl Fn(Role) -> bool) -> Vec<String> {
    let wanted = chat.messages.iter().filter(|message| wanted(message.role));
    wanted.filter_map(|message| message.content.as_ref().map(crate::protocol::old_chat::Content::text)).collect()
}

/// The conversation as text: alone, the one message; otherwise each turn with its speaker, open for the answer.
fn transcript(chat: &ChatRequest) -> String {
    let text =
        |message: &crate::protocol::old_chat::Message| message.content.as_ref().map(|c| c.text()).unwrap_or_default();
    if let [only] = chat.messages.as_slice() {
        return text(only);
    }
    let mut lines: Vec<String> = chat
        .messages
        .iter()
        .map(|message| {
            let speaker = match message.role {
                Role::System | Role::Developer => "System",
                Role::User => "User",
                Role::Assistant => "Assistant",
                Role::Tool | Role::Function => "Tool",
            };
            format!("{speaker}: {}", text(message))
        })
        .collect();
    lines.push("Assistant:".to_owned());
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

/// The caller's parameters that the template has no place for.
fn dropped(raw: &Map<String, Value>, template: &Value) -> Vec<String> {
    let mut used = Vec::new();
    placeholders(template, &mut used);
    let covers = |name: &str| {
        let name = if name == "max_completion_tokens" { "max_tokens" } else { name };
        used.iter().any(|used| used == name)
    };
    let left_out = raw.iter().filter(|(name, value)| {
        !value.is_null()
            && !matches!(name.as_str(), "model" | "messages" | "stream" | "stream_options")
            && !covers(name)
    });
    tellable_names(left_out.map(|(name, _)| name))
}

// === The reply ===

#[derive(Debug, Default)]
struct ReplyState {
    started: bool,
    finished: bool,
    usage: Usage,
}

impl ReplyState {
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
        let (input, output) = (tokens(&reply.input_tokens), tokens(&reply.output_tokens));
        if input.is_some() || output.is_some() {
            self.usage.input = input.unwrap_or(self.usage.input);
            self.usage.output = output.unwrap_or(self.usage.output);
            out.push(ChatEvent::Usage(self.usage));
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
}

/// A text or number at a pointer, if it is there and not empty.
fn text_at(value: &Value, pointer: Option<&str>) -> Option<String> {
    match value.pointer(pointer?)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

enum Splitter {
    Sse(SseDecoder),
    Lines(Vec<u8>),
}

struct Decoder {
    stream: Option<GenericStream>,
    splitter: Option<Splitter>,
    state: ReplyState,
    done: bool,
}

impl Decoder {
    fn take_data(&mut self, data: &[u8], out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        let Some(stream) = &self.stream else { return Ok(()) };
        if data.trim_ascii().is_empty() {
            return Ok(());
        }
        if stream.done.as_ref().is_some_and(|done| done.as_bytes() == data.trim_ascii()) {
            self.done = true;
            return Ok(());
        }
        let object: Value = serde_json::from_slice(data).map_err(|error| ReplyFault::Malformed(error.to_string()))?;
        if let Some(message) = text_at(&object, stream.error_message.as_deref()) {
            return Err(ReplyFault::Reported { message, code: None });
        }
        self.state.take(&object, &stream.reply, out)
    }
}

impl ReplyDecoder for Decoder {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        let framing = self.stream.as_ref().map(|stream| stream.framing);
        let mut splitter = self.splitter.take().unwrap_or_else(|| match framing {
            Some(Framing::Ndjson) => Splitter::Lines(Vec::new()),
            _ => Splitter::Sse(SseDecoder::new(MAX_EVENT_BYTES)),
        });
        match &mut splitter {
            Splitter::Sse(sse) => {
                sse.push(bytes).map_err(|error| ReplyFault::Malformed(error.to_string()))?;
                while let Some(frame) = sse.next_frame() {
                    if let Some(data) = frame.data {
                        self.take_data(&data, out)?;
                    }
                }
            }
            Splitter::Lines(pending) => {
                // Only the new bytes are searched, or a long line in many pieces would take quadratic time.
                let last = memchr::memrchr(b'\n', bytes).map(|at| at.saturating_add(pending.len()));
                pending.extend_from_slice(bytes);
                if let Some(last) = last {
                    let rest = pending.split_off(last.saturating_add(1));
                    let lines = std::mem::replace(pending, rest);
                    for line in lines.split(|byte| *byte == b'\n') {
                        self.take_data(line, out)?;
                    }
                }
                if pending.len() > MAX_EVENT_BYTES {
                    return Err(ReplyFault::Malformed(format!("a line is larger than {MAX_EVENT_BYTES} bytes")));
                }
            }
        }
        self.splitter = Some(splitter);
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        let rest = match self.splitter.take() {
            Some(Splitter::Sse(mut sse)) => sse.unfinished().and_then(|(_, data)| data),
            Some(Splitter::Lines(pending)) => Some(pending),
            None => None,
        };
        let done = self.stream.as_ref().and_then(|stream| stream.done.as_deref());
        let ends = |data: &[u8]| done.is_some_and(|done| done.as_bytes() == data.trim_ascii());
        if let Some(rest) = rest.filter(|rest| serde_json::from_slice::<Value>(rest).is_ok() || ends(rest)) {
            self.take_data(&rest, out)?;
        }
        if self.done && !self.state.finished && self.state.started {
            out.push(ChatEvent::Finish { choice: 0, reason: FinishReason::Stop });
            return Ok(());
        }
        if self.state.finished { Ok(()) } else { Err(ReplyFault::Truncated) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json_scan::{ScanLimits, scan_object};
    use serde_json::json;

    fn provider(mapping: &Value) -> Provider {
        let provider = json!({"dialect": "generic", "base_url": "https://g.example", "generic": mapping});
        serde_json::from_value(provider).unwrap()
    }

    fn target(provider: &Provider) -> Target<'_> {
        let structured_output = crate::config::StructuredOutput::Native;
        Target { provider, upstream_model: "org/the model", max_output_tokens: 100, structured_output }
    }

    fn request(mapping: &Value, body: &Value) -> Result<UpstreamRequest, Problem> {
        let body = body.to_string();
        let members = scan_object(body.as_bytes(), ScanLimits::default()).unwrap();
        let source = Source { body: body.as_bytes(), members: &members, stream: false };
        Generic.chat_request(&source, target(&provider(mapping)))
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
        Generic.decode_body(body.to_string().as_bytes(), target(&provider(&reply_mapping())))
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
        let decoded = Generic.decode_error(&json!({"fault": {"say": "no", "no": 42}}), &provider(&reply_mapping()));
        assert_eq!((decoded.message.as_deref(), decoded.code.as_deref()), (Some("no"), Some("42")));
        let usual = Generic.decode_error(&json!({"error": {"message": "m", "type": "t"}}), &provider(&reply_mapping()));
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
        let mut decoder = Generic.stream_decoder(target(&provider));
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
        let mut decoder = Generic.stream_decoder(target(&provider));
        let piece = vec![b'x'; MAX_EVENT_BYTES];
        assert_eq!(decoder.push(&piece, &mut Vec::new()), Ok(()));
        assert!(matches!(decoder.push(b"x", &mut Vec::new()), Err(ReplyFault::Malformed(_))));
    }
}
