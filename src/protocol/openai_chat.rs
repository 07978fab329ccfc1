//! OpenAI Chat Completions: replies written from [`ChatEvent`]s and read into them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::cost_tag::CostTag;
use super::old_chat::{ChatEvent, FinishReason, ReplyDecoder, ReplyFault};
use super::sse::{self, SseDecoder};
use super::usage::{BillingFacts, Usage};

/// The largest single event that a stream may contain.
pub const MAX_EVENT_BYTES: usize = 16 * 1024 * 1024;

/// What stands in every chunk and body of one reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyIdentity {
    /// The reply's id.
    pub id: String,
    /// Unix seconds.
    pub created: u64,
    /// The model, as the caller named it.
    pub model: String,
}

impl ReplyIdentity {
    /// Takes what the upstream told; the caller's own model name stays.
    fn adopt(&mut self, id: &str, created: Option<u64>) {
        if !id.is_empty() {
            self.id = if id.starts_with("chatcmpl-") { id.to_owned() } else { format!("chatcmpl-{id}") };
        }
        if let Some(created) = created.filter(|seconds| *seconds > 0) {
            self.created = created;
        }
    }
}

/// Writes a reply as a stream of chunks: one id throughout, the role first, exactly one finish reason for each choice,
/// then the usage if it was asked for and the provider told it (zeros would be believed), then `[DONE]`.
#[derive(Debug)]
pub struct StreamEncoder {
    identity: ReplyIdentity,
    include_usage: bool,
    /// Choices that have begun, with the reason for which each has ended.
    choices: BTreeMap<u32, Option<FinishReason>>,
    usage: Option<Usage>,
}

impl StreamEncoder {
    /// `identity` serves until the upstream's own is known.
    pub fn new(identity: ReplyIdentity, include_usage: bool) -> Self {
        Self { identity, include_usage, choices: BTreeMap::new(), usage: None }
    }

    /// Writes what an event adds to the stream.
    pub fn write(&mut self, event: &ChatEvent, out: &mut Vec<u8>) {
        match event {
            ChatEvent::Start { id, created, .. } => {
                if self.choices.is_empty() {
                    self.identity.adopt(id, *created);
                }
                self.begin(0, out);
            }
            ChatEvent::Text { choice, text, logprobs } => {
                self.begin(*choice, out);
                self.chunk(*choice, json!({"content": text}), None, logprobs.as_ref(), out);
            }
            ChatEvent::Refusal { choice, text } => self.delta(*choice, json!({"refusal": text}), out),
            ChatEvent::Reasoning { choice, text } => self.delta(*choice, json!({"reasoning_content": text}), out),
            ChatEvent::ThinkingBlock { choice, block } => self.delta(*choice, json!({"thinking_blocks": [block]}), out),
            ChatEvent::ToolCallStart { choice, index, id, name } => {
                let call =
                    json!({"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": ""}});
                self.delta(*choice, json!({"tool_calls": [call]}), out);
            }
            ChatEvent::ToolCallArguments { choice, index, fragment } => {
                let call = json!({"index": index, "function": {"arguments": fragment}});
                self.delta(*choice, json!({"tool_calls": [call]}), out);
            }
            ChatEvent::Annotations { choice, annotations } => {
                self.delta(*choice, json!({"annotations": annotations}), out);
            }
            // Held back to the end: some providers repeat or revise the reason, the caller gets one.
            ChatEvent::Finish { choice, reason } => {
                self.begin(*choice, out);
                self.choices.insert(*choice, Some(*reason));
            }
            ChatEvent::Usage(usage) => self.usage = Some(*usage),
            ChatEvent::Billed(_) => {}
        }
    }

    /// Writes the end of a complete reply; the usage chunk tells the cost if it is given.
    pub fn end(&mut self, cost: Option<CostTag>, out: &mut Vec<u8>) {
        let choices = std::mem::take(&mut self.choices);
        for (choice, reason) in choices {
            self.chunk(choice, json!({}), Some(reason.unwrap_or(FinishReason::Stop)), None, out);
        }
        if let Some(usage) = self.usage.filter(|_| self.include_usage) {
            let chunk = self.envelope(json!([]), Some(usage.to_openai())).to_string().into_bytes();
            let tagged = cost.and_then(|cost| cost.write_into(&chunk, &["usage"]));
            sse::write_data(out, &tagged.unwrap_or(chunk));
        }
        sse::write_data(out, b"[DONE]");
    }

    fn begin(&mut self, choice: u32, out: &mut Vec<u8>) {
        if let Entry::Vacant(entry) = self.choices.entry(choice) {
            entry.insert(None);
            self.chunk(choice, json!({"role": "assistant", "content": ""}), None, None, out);
        }
    }

    fn delta(&mut self, choice: u32, delta: Value, out: &mut Vec<u8>) {
        self.begin(choice, out);
        self.chunk(choice, delta, None, None, out);
    }

    fn chunk(
        &self,
        choice: u32,
        delta: Value,
        finish: Option<FinishReason>,
        logprobs: Option<&Value>,
        out: &mut Vec<u8>,
    ) {
        let choices = json!([{
            "index": choice,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": finish.map(FinishReason::as_str),
        }]);
        let chunk = self.envelope(choices, self.include_usage.then_some(Value::Null));
        sse::write_data(out, chunk.to_string().as_bytes());
    }

    fn envelope(&self, choices: Value, usage: Option<Value>) -> Value {
        let mut chunk = json!({
            "id": self.identity.id,
            "object": "chat.completion.chunk",
            "created": self.identity.created,
            "model": self.identity.model,
            "choices": choices,
        });
        if let (Some(usage), Some(object)) = (usage, chunk.as_object_mut()) {
            object.insert("usage".to_owned(), usage);
        }
        chunk
    }
}

/// Collects a reply's events into one `chat.completion` body.
#[derive(Debug)]
pub struct BodyEncoder {
    identity: ReplyIdentity,
    choices: BTreeMap<u32, CollectedChoice>,
    usage: Option<Usage>,
}

#[derive(Debug, Default)]
struct CollectedChoice {
    text: Option<String>,
    refusal: Option<String>,
    reasoning: Option<String>,
    thinking_blocks: Vec<Value>,
    annotations: Vec<Value>,
    calls: BTreeMap<u32, (String, String, String)>,
    logprobs: Option<Value>,
    finish: Option<FinishReason>,
}

impl BodyEncoder {
    /// `identity` serves where the upstream gives none.
    pub fn new(identity: ReplyIdentity) -> Self {
        Self { identity, choices: BTreeMap::new(), usage: None }
    }

    /// Adds an event.
    pub fn add(&mut self, event: ChatEvent) {
        match event {
            ChatEvent::Start { id, created, .. } => {
                self.identity.adopt(&id, created);
                self.choice(0);
            }
            ChatEvent::Text { choice, text, logprobs } => {
                let choice = self.choice(choice);
                choice.text.get_or_insert_default().push_str(&text);
                if let Some(more) = logprobs {
                    append_logprobs(&mut choice.logprobs, more);
                }
            }
            ChatEvent::Refusal { choice, text } => {
                self.choice(choice).refusal.get_or_insert_default().push_str(&text);
            }
            ChatEvent::Reasoning { choice, text } => {
                self.choice(choice).reasoning.get_or_insert_default().push_str(&text);
            }
            ChatEvent::ThinkingBlock { choice, block } => self.choice(choice).thinking_blocks.push(block),
            ChatEvent::ToolCallStart { choice, index, id, name } => {
                self.choice(choice).calls.insert(index, (id, name, String::new()));
            }
            ChatEvent::ToolCallArguments { choice, index, fragment } => {
                if let Some((_, _, arguments)) = self.choice(choice).calls.get_mut(&index) {
                    arguments.push_str(&fragment);
                }
            }
            ChatEvent::Annotations { choice, annotations } => self.choice(choice).annotations.extend(annotations),
            ChatEvent::Finish { choice, reason } => self.choice(choice).finish = Some(reason),
            ChatEvent::Usage(usage) => self.usage = Some(usage),
            ChatEvent::Billed(_) => {}
        }
    }

    /// The whole body.
    pub fn finish(self) -> Value {
        let choices: Vec<Value> = self.choices.into_iter().map(|(index, choice)| choice.into_json(index)).collect();
        let mut body = json!({
            "id": self.identity.id,
            "object": "chat.completion",
            "created": self.identity.created,
            "model": self.identity.model,
            "choices": choices,
        });
        if let (Some(usage), Some(body)) = (self.usage, body.as_object_mut()) {
            body.insert("usage".to_owned(), usage.to_openai());
        }
        body
    }

    fn choice(&mut self, index: u32) -> &mut CollectedChoice {
        self.choices.entry(index).or_default()
    }
}

impl CollectedChoice {
    fn into_json(self, index: u32) -> Value {
        let mut message = Map::new();
        message.insert("role".to_owned(), "assistant".into());
        let content = if self.calls.is_empty() && self.refusal.is_none() {
            Some(self.text.unwrap_or_default())
        } else {
            self.text.filter(|text| !text.is_empty())
        };
        message.insert("content".to_owned(), content.into());
        message.insert("refusal".to_owned(), self.refusal.into());
        if let Some(reasoning) = self.reasoning {
            message.insert("reasoning_content".to_owned(), reasoning.into());
        }
        if !self.thinking_blocks.is_empty() {
            message.insert("thinking_blocks".to_owned(), self.thinking_blocks.into());
        }
        if !self.annotations.is_empty() {
            message.insert("annotations".to_owned(), self.annotations.into());
        }
        if !self.calls.is_empty() {
            let calls: Vec<Value> = self
                .calls
                .into_values()
                .map(|(id, name, arguments)| {
                    json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
                })
                .collect();
            message.insert("tool_calls".to_owned(), calls.into());
        }
        json!({
            "index": index,
            "message": message,
            "logprobs": self.logprobs,
            "finish_reason": self.finish.unwrap_or(FinishReason::Stop).as_str(),
        })
    }
}

/// Log probabilities of a stream come piecewise: `{"content": […], "refusal": […]}`, each list a continuation.
fn append_logprobs(all: &mut Option<Value>, more: Value) {
    let Some(Value::Object(all)) = all else {
        *all = Some(more);
        return;
    };
    let Value::Object(more) = more else { return };
    for (field, tokens) in more {
        match (all.get_mut(&field).and_then(Value::as_array_mut), tokens) {
            (Some(so_far), Value::Array(tokens)) => so_far.extend(tokens),
            (None, tokens) => {
                all.insert(field, tokens);
            }
            (Some(_), _) => {}
        }
    }
}

/// A chunk of a stream or a whole body, as lenient as OpenAI-like providers need it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reply {
    id: Option<String>,
    object: Option<Value>,
    created: Option<f64>,
    model: Option<String>,
    choices: Option<Vec<Choice>>,
    usage: Option<Value>,
    service_tier: Option<Value>,
    /// Groq's own member: some of its models tell their usage only here.
    x_groq: Option<Value>,
    error: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Choice {
    index: Option<u32>,
    delta: Option<Delta>,
    /// A whole reply's message. Perplexity's streams have it beside `delta`, with all the text so far.
    message: Option<Delta>,
    finish_reason: Option<String>,
    logprobs: Option<Value>,
    usage: Option<Value>,
    error: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Delta {
    content: Option<Value>,
    refusal: Option<String>,
    reasoning_content: Option<String>,
    reasoning: Option<String>,
    annotations: Option<Vec<Value>>,
    tool_calls: Option<Vec<CallDelta>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CallDelta {
    index: Option<u32>,
    id: Option<String>,
    function: Option<FunctionDelta>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FunctionDelta {
    name: Option<String>,
    arguments: Option<Value>,
}

/// Reads chunks and bodies into events. One decoder serves one reply.
#[derive(Debug)]
pub struct Decoder {
    sse: SseDecoder,
    state: ReplyState,
}

#[derive(Debug, Default)]
struct ReplyState {
    started: bool,
    done: bool,
    choices: BTreeMap<u32, ChoiceState>,
}

#[derive(Debug, Default)]
struct ChoiceState {
    begun: bool,
    finished: bool,
    /// Its tool calls by position: whether arguments have come.
    calls: Vec<bool>,
    /// The positions of calls by the provider's index; a later call takes an index over.
    by_index: BTreeMap<u32, (usize, String)>,
    /// The positions of calls by the provider's id.
    by_id: BTreeMap<String, usize>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { sse: SseDecoder::new(MAX_EVENT_BYTES), state: ReplyState::default() }
    }
}

/// Reads a whole `chat.completion` body.
///
/// # Errors
/// [`ReplyFault`] if it is not one, or carries an error.
pub fn decode_body(body: &[u8]) -> Result<Vec<ChatEvent>, ReplyFault> {
    let mut events = Vec::new();
    let mut state = ReplyState::default();
    let reply = parse(body)?;
    if reply.choices.as_ref().is_none_or(Vec::is_empty) && reply.error.is_none() {
        return Err(ReplyFault::Malformed("it has no `choices`".to_owned()));
    }
    state.take(reply, &mut events)?;
    Ok(events)
}

impl ReplyDecoder for Decoder {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        self.sse.push(bytes).map_err(|error| ReplyFault::Malformed(error.to_string()))?;
        while let Some(frame) = self.sse.next_frame() {
            let Some(data) = frame.data else { continue };
            if frame.name == b"error" {
                return Err(reported_event(&data));
            }
            self.state.take_data(&data, out)?;
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        if let Some((_, Some(data))) = self.sse.unfinished()
            && (data == b"[DONE]" || serde_json::from_slice::<Reply>(&data).is_ok())
        {
            self.state.take_data(&data, out)?;
        }
        let finished = !self.state.choices.is_empty() && self.state.choices.values().all(|choice| choice.finished);
        if finished || (self.state.done && self.state.started) { Ok(()) } else { Err(ReplyFault::Truncated) }
    }
}

fn parse(data: &[u8]) -> Result<Reply, ReplyFault> {
    let reply: Reply = serde_json::from_slice(data).map_err(|error| ReplyFault::Malformed(error.to_string()))?;
    // vLLM's older form of an error, with the error's members at the top.
    if reply.object.as_ref().is_some_and(|object| object == "error") {
        return Err(reported_event(data));
    }
    Ok(reply)
}

impl ReplyState {
    fn take_data(&mut self, data: &[u8], out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        if data == b"[DONE]" {
            self.done = true;
            return Ok(());
        }
        if data.is_empty() {
            return Ok(());
        }
        self.take(parse(data)?, out)
    }

    fn take(&mut self, reply: Reply, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        let choices = reply.choices.unwrap_or_default();
        // Azure opens a stream with a chunk about the prompt that has neither choices nor an id of its own.
        if !self.started && !choices.is_empty() {
            self.started = true;
            out.push(ChatEvent::Start {
                id: reply.id.unwrap_or_default(),
                model: reply.model.unwrap_or_default(),
                created: reply.created.filter(|seconds| *seconds >= 1.0).map(|seconds| seconds as u64),
            });
        }
        // Before anything that may turn out to be an error: what was used is owed either way. Moonshot tells the usage
        // in the choice.
        let usage = reply.usage.as_ref().and_then(Usage::from_openai);
        let usage = usage.or_else(|| Usage::from_openai(reply.x_groq.as_ref()?.get("usage")?));
        let usage = usage.or_else(|| choices.iter().find_map(|choice| Usage::from_openai(choice.usage.as_ref()?)));
        if let Some(usage) = usage {
            let members = [("usage", reply.usage), ("service_tier", reply.service_tier)];
            let told = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
            let facts = BillingFacts::from_openai(&Value::Object(told.collect()));
            if facts != BillingFacts::default() {
                out.push(ChatEvent::Billed(facts));
            }
            out.push(ChatEvent::Usage(usage));
        }
        if let Some(error) = reply.error.filter(|error| !error.is_null()) {
            return Err(reported(&error));
        }
        for choice in choices {
            self.take_choice(choice, out)?;
        }
        Ok(())
    }

    fn take_choice(&mut self, choice: Choice, out: &mut Vec<ChatEvent>) -> Result<(), ReplyFault> {
        let number = choice.index.unwrap_or(0);
        let state = self.choices.entry(number).or_default();
        let mut logprobs = choice.logprobs.filter(|value| !value.is_null());
        // A message beside or after deltas repeats them.
        let message = choice.message.filter(|_| !state.begun);
        state.begun = true;
        if let Some(delta) = choice.delta.or(message) {
            let has_text = |text: &String| !text.is_empty();
            if let Some(text) = delta.reasoning_content.filter(has_text).or(delta.reasoning.filter(has_text)) {
                out.push(ChatEvent::Reasoning { choice: number, text });
            }
            if let Some(content) = delta.content {
                take_content(number, content, &mut logprobs, out);
            }
            if let Some(text) = delta.refusal.filter(has_text) {
                out.push(ChatEvent::Refusal { choice: number, text });
            }
            if let Some(annotations) = delta.annotations.filter(|list| !list.is_empty()) {
                out.push(ChatEvent::Annotations { choice: number, annotations });
            }
            for call in delta.tool_calls.unwrap_or_default() {
                state.take_call(number, call, out);
            }
        }
        if logprobs.is_some() {
            out.push(ChatEvent::Text { choice: number, text: String::new(), logprobs });
        }
        if let Some(error) = choice.error.filter(|error| !error.is_null()) {
            return Err(reported(&error));
        }
        if let Some(word) = choice.finish_reason.filter(|word| !word.is_empty()) {
            if FinishReason::is_failure(&word) {
                return Err(ReplyFault::failed_finish(&word));
            }
            let reason = FinishReason::from_openai(&word);
            state.finished = true;
            if reason != FinishReason::Length {
                state.complete_calls(number, out);
            }
            out.push(ChatEvent::Finish { choice: number, reason });
        }
        Ok(())
    }
}

impl ChoiceState {
    fn take_call(&mut self, choice: u32, call: CallDelta, out: &mut Vec<ChatEvent>) {
        let id = call.id.filter(|id| !id.is_empty());
        let function = call.function.unwrap_or_default();
        let name = function.name.filter(|name| !name.is_empty());
        let position = self.position(call.index, id.as_deref(), name.is_some()).unwrap_or_else(|| {
            let position = self.calls.len();
            let id = id.unwrap_or_else(|| format!("call_{choice}_{position}"));
            self.calls.push(false);
            self.by_id.insert(id.clone(), position);
            if let Some(index) = call.index {
                self.by_index.insert(index, (position, id.clone()));
            }
            let name = name.unwrap_or_default();
            out.push(ChatEvent::ToolCallStart { choice, index: number(position), id, name });
            position
        });
        let fragment = match function.arguments {
            Some(Value::String(text)) => text,
            Some(Value::Null) | None => String::new(),
            // Seen in the wild: arguments as an object instead of as JSON text.
            Some(object) => object.to_string(),
        };
        if !fragment.is_empty() {
            if let Some(has_arguments) = self.calls.get_mut(position) {
                *has_arguments = true;
            }
            out.push(ChatEvent::ToolCallArguments { choice, index: number(position), fragment });
        }
    }

    /// The call that a piece continues; `None` if it begins one. Indexes are the providers' own: they may begin at 1,
    /// all be 0 (Gemini, which gives each call its id), or be missing. An id that changes from piece to piece (vLLM)
    /// begins a call only together with a name.
    fn position(&self, index: Option<u32>, id: Option<&str>, named: bool) -> Option<usize> {
        match (index, id) {
            (Some(index), id) => {
                let (position, known) = self.by_index.get(&index)?;
                let is_another = named && id.is_some_and(|id| id != known);
                (!is_another).then_some(*position)
            }
            (None, Some(id)) => self.by_id.get(id).copied(),
            (None, None) if named => None,
            (None, None) => self.calls.len().checked_sub(1),
        }
    }

    /// A call without arguments still has arguments in OpenAI's terms: an empty object.
    fn complete_calls(&mut self, choice: u32, out: &mut Vec<ChatEvent>) {
        for (position, has_arguments) in self.calls.iter_mut().enumerate() {
            if !std::mem::replace(has_arguments, true) {
                out.push(ChatEvent::ToolCallArguments { choice, index: number(position), fragment: "{}".to_owned() });
            }
        }
    }
}

/// A call's position as it stands on the wire.
fn number(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

/// Content is text, or (Mistral's reasoning models) a list of parts of which `thinking` parts are reasoning.
fn take_content(choice: u32, content: Value, logprobs: &mut Option<Value>, out: &mut Vec<ChatEvent>) {
    match content {
        Value::String(text) if !text.is_empty() => {
            out.push(ChatEvent::Text { choice, text, logprobs: logprobs.take() });
        }
        Value::Array(parts) => {
            for part in parts {
                if let Some(thinking) = part.get("thinking") {
                    let text = match thinking {
                        Value::String(text) => text.clone(),
                        Value::Array(inner) => inner.iter().filter_map(|p| p.get("text")?.as_str()).collect(),
                        _ => String::new(),
                    };
                    if !text.is_empty() {
                        out.push(ChatEvent::Reasoning { choice, text });
                    }
                } else if let Some(text) = part.get("text").and_then(Value::as_str).filter(|text| !text.is_empty()) {
                    out.push(ChatEvent::Text { choice, text: text.to_owned(), logprobs: None });
                }
            }
        }
        _ => {}
    }
}

/// Reads the data of an event that is an error as a whole, with or without an `error` member.
pub fn reported_event(data: &[u8]) -> ReplyFault {
    let data = serde_json::from_slice(data).unwrap_or_else(|_| Value::from(String::from_utf8_lossy(data)));
    reported(data.get("error").filter(|error| !error.is_null()).unwrap_or(&data))
}

/// Reads the `error` member of a chunk or body.
pub fn reported(error: &Value) -> ReplyFault {
    let message = error
        .get("message")
        .and_then(Value::as_str)
        .or_else(|| error.as_str())
        .unwrap_or("the provider reported an error without a message");
    let code = ["code", "type"].iter().find_map(|field| match error.get(field)? {
        Value::String(code) if !code.is_empty() => Some(code.clone()),
        Value::Number(code) => Some(code.to_string()),
        _ => None,
    });
    ReplyFault::Reported { message: message.to_owned(), code }
}

#[cfg(test)]
mod tests;
