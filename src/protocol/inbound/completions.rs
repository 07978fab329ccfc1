//! OpenAI's older Completions as callers speak it (<https://platform.openai.com/docs/api-reference/completions>): a text
//! goes in, its continuation comes out. A chat model is asked the text as the only message of a conversation.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::{Map, Value, json};

use super::node::Node;
use super::{BodyWriter, Echo, Inbound, ReplyIdentity, StreamWriter};
use crate::error::Problem;
use crate::protocol::Api;
use crate::protocol::chat::{ChatEvent, ChatRequest, FinishReason, List, Message, Part, PartBody, Place, Role};
use crate::protocol::cost_tag::CostTag;
use crate::protocol::sse;
use crate::protocol::usage::Told;

/// The member of [`Echo`] under which the prompt stands where the reply is to begin with it.
const PROMPT: &str = "prompt";

/// The dialect.
#[derive(Debug)]
pub struct Completions;

impl Inbound for Completions {
    fn api(&self) -> Api {
        Api::Completions
    }

    fn read(&self, body: &[u8]) -> Result<ChatRequest, Problem> {
        let body: Value = serde_json::from_slice(body).map_err(|error| Problem {
            code: "invalid_json".to_owned(),
            ..Problem::invalid("", format!("The body is not valid JSON: {error}."))
        })?;
        read(&Node::root(&body))
    }

    fn echo(&self, chat: &ChatRequest) -> Echo {
        let mut members = Map::new();
        if let Some(message) = chat.messages.first().filter(|_| chat.output.echo) {
            members.insert(PROMPT.to_owned(), message.text().into());
        }
        Echo { include_usage: chat.include_usage, members, ..Echo::default() }
    }

    fn stream(&self, identity: ReplyIdentity, echo: Echo) -> Box<dyn StreamWriter> {
        Box::new(ChunkWriter {
            include_usage: echo.include_usage,
            choices: BTreeMap::new(),
            frame: Frame::new(identity, echo),
        })
    }

    fn whole(&self, identity: ReplyIdentity, echo: Echo) -> Box<dyn BodyWriter> {
        Box::new(CompletionWriter { frame: Frame::new(identity, echo), choices: BTreeMap::new() })
    }
}

// === The request ===

/// The members that are read; all others are kept by their names.
const READ: &[&str] = &[
    "model",
    "prompt",
    "stream",
    "stream_options",
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "stop",
    "logit_bias",
    "n",
    "user",
    "echo",
    "suffix",
    "best_of",
    "logprobs",
];

fn read(root: &Node<'_>) -> Result<ChatRequest, Problem> {
    let members = root.object()?;
    let mut chat = ChatRequest::new(Api::Completions, root.member("model").owned()?);
    chat.stream = root.member("stream").optional(Node::flag)?.unwrap_or(false);
    if let Some(options) = root.member("stream_options").given() {
        chat.include_usage = options.member("include_usage").optional(Node::flag)?.unwrap_or(false);
    }
    chat.messages.push(asked(prompt(&root.member("prompt"))?));
    refuse(root)?;
    let number = |name, most: f64| {
        let node = root.member(name);
        let value = node.optional(Node::number)?;
        match value.filter(|value| !(0.0..=most).contains(value)) {
            Some(_) => Err(node.fault(&format!("must be 0 to {most}"))),
            None => Ok(value),
        }
    };
    let sampling = &mut chat.sampling;
    (sampling.temperature, sampling.top_p) = (number("temperature", 2.0)?, number("top_p", 1.0)?);
    sampling.top_k = root.member("top_k").optional(Node::whole)?;
    sampling.min_p = root.member("min_p").optional(Node::number)?;
    sampling.presence_penalty = root.member("presence_penalty").optional(Node::number)?;
    sampling.frequency_penalty = root.member("frequency_penalty").optional(Node::number)?;
    sampling.repetition_penalty = root.member("repetition_penalty").optional(Node::number)?;
    let seed = root.member("seed");
    sampling.seed = seed.optional(|it| it.value().as_i64().ok_or_else(|| it.fault("must be a whole number")))?;
    sampling.n = root.member("n").optional(Node::whole)?;
    sampling.logit_bias =
        root.member("logit_bias").optional(|it| it.object().cloned())?.filter(|bias| !bias.is_empty());
    let stop = root.member("stop");
    sampling.stop = match stop.value() {
        Value::Null => Vec::new(),
        Value::String(text) => vec![text.clone()],
        _ => stop.items()?.map(|text| text.owned()).collect::<Result<_, _>>()?,
    };
    chat.output.max_tokens = root.member("max_tokens").optional(Node::whole)?;
    chat.output.echo = root.member("echo").optional(Node::flag)?.unwrap_or(false);
    chat.caller.user = root.member("user").optional(Node::owned)?;
    let extra = members.iter().filter(|(name, value)| !READ.contains(&name.as_str()) && !value.is_null());
    chat.extra = extra.map(|(name, value)| (name.clone(), value.clone())).collect();
    Ok(chat)
}

/// The one text that is to be continued.
fn prompt(node: &Node<'_>) -> Result<String, Problem> {
    const TOKENS: &str = "tokens mean nothing to the model that answers: send the text itself";
    if node.value().is_string() {
        return node.owned();
    }
    let mut prompts = node.items()?;
    match (prompts.next(), prompts.next()) {
        (None, _) => Err(node.fault("must not be empty")),
        (Some(first), _) if first.value().is_number() || first.value().is_array() => Err(node.fault(TOKENS)),
        (Some(first), None) => first.owned(),
        _ => Err(node.fault("the model that answers takes one prompt a request: send one request for each")),
    }
}

fn asked(text: String) -> Message {
    let at = Place::item(List::Prompt, 0);
    let part = Part { body: PartBody::Text { text, signature: None }, cache: None, at };
    Message { role: Role::User, parts: vec![part], name: None, at }
}

/// Refuses what no chat model does.
fn refuse(root: &Node<'_>) -> Result<(), Problem> {
    let suffix = root.member("suffix");
    let is_text = |node: &Node<'_>| node.text().map(|text| !text.is_empty());
    let cannot = |node: Node<'_>, what: &str| {
        let problem = node.fault(&format!("the model that answers is a chat model, which {what}"));
        Err(Problem { code: "unsupported_parameter".to_owned(), ..problem })
    };
    if suffix.optional(is_text)?.unwrap_or(false) {
        return cannot(suffix, "does not fill in the middle of a text");
    }
    let best_of = root.member("best_of");
    if best_of.optional(Node::whole)?.is_some_and(|best| best > 1) {
        return cannot(best_of, "does not choose among its answers");
    }
    let logprobs = root.member("logprobs");
    if logprobs.given().is_some() && logprobs.value() != &Value::Bool(false) {
        return cannot(logprobs, "has no log probabilities in this form; leave it out");
    }
    Ok(())
}

// === The reply ===

/// What is the same in every chunk and in the body.
#[derive(Debug)]
struct Frame {
    identity: ReplyIdentity,
    /// With what each choice begins.
    prompt: String,
}

impl Frame {
    fn new(identity: ReplyIdentity, echo: Echo) -> Self {
        let prompt = echo.members.get(PROMPT).and_then(Value::as_str).unwrap_or_default().to_owned();
        let id = prefixed(&identity.id);
        Self { identity: ReplyIdentity { id, ..identity }, prompt }
    }

    /// Takes what the upstream told of its reply; the caller's own model name stays.
    fn adopt(&mut self, id: &str, created: Option<u64>) {
        if !id.is_empty() {
            self.identity.id = prefixed(id);
        }
        self.identity.created = created.filter(|seconds| *seconds > 0).unwrap_or(self.identity.created);
    }

    fn object(&self, choices: Value, usage: Option<Value>) -> Value {
        let ReplyIdentity { id, created, model } = &self.identity;
        let mut body =
            json!({"id": id, "object": "text_completion", "created": created, "model": model, "choices": choices});
        if let (Some(usage), Some(body)) = (usage, body.as_object_mut()) {
            body.insert("usage".to_owned(), usage);
        }
        body
    }
}

fn prefixed(id: &str) -> String {
    if id.starts_with("cmpl-") { id.to_owned() } else { format!("cmpl-{id}") }
}

fn choice(index: u32, text: &str, finish: Option<&FinishReason>) -> Value {
    // A text has no calls, so it cannot end by one.
    let reason = finish.map(|reason| if *reason == FinishReason::ToolCalls { "stop" } else { reason.as_openai() });
    json!({"text": text, "index": index, "logprobs": null, "finish_reason": reason})
}

/// What an event adds to the text of a choice.
fn piece(event: &ChatEvent) -> Option<(u32, &str)> {
    match event {
        ChatEvent::Text { choice, text, .. } | ChatEvent::Refusal { choice, text } => Some((*choice, text)),
        _ => None,
    }
}

/// Writes a stream of chunks: exactly one finish reason for each choice, then the usage if it was asked for and told,
/// then `[DONE]`.
#[derive(Debug)]
struct ChunkWriter {
    frame: Frame,
    include_usage: bool,
    /// Choices that have begun, with the reason for which each has ended.
    choices: BTreeMap<u32, Option<FinishReason>>,
}

impl ChunkWriter {
    fn chunk(&self, choices: Value, out: &mut Vec<u8>) {
        let chunk = self.frame.object(choices, self.include_usage.then_some(Value::Null));
        sse::write_data(out, chunk.to_string().as_bytes());
    }

    /// The first that comes of a choice is what it is to begin with.
    fn begin(&mut self, index: u32, out: &mut Vec<u8>) {
        if let Entry::Vacant(entry) = self.choices.entry(index) {
            entry.insert(None);
            if !self.frame.prompt.is_empty() {
                self.chunk(json!([choice(index, &self.frame.prompt, None)]), out);
            }
        }
    }
}

impl StreamWriter for ChunkWriter {
    fn write(&mut self, event: &ChatEvent, out: &mut Vec<u8>) {
        if let Some((index, text)) = piece(event) {
            self.begin(index, out);
            self.chunk(json!([choice(index, text, None)]), out);
        }
        match event {
            ChatEvent::Start { id, created, .. } if self.choices.is_empty() => {
                self.frame.adopt(id, *created);
                self.begin(0, out);
            }
            // Held back to the end: some providers repeat or revise the reason, the caller gets one.
            ChatEvent::Finish { choice, reason } => {
                self.begin(*choice, out);
                self.choices.insert(*choice, Some(reason.clone()));
            }
            _ => {}
        }
    }

    fn end(&mut self, told: Option<&Told>, cost: Option<CostTag>, out: &mut Vec<u8>) {
        for (index, reason) in std::mem::take(&mut self.choices) {
            self.chunk(json!([choice(index, "", Some(&reason.unwrap_or(FinishReason::Stop)))]), out);
        }
        if let Some(told) = told.filter(|_| self.include_usage) {
            let chunk = self.frame.object(json!([]), Some(told.usage.to_openai())).to_string().into_bytes();
            let tagged = cost.and_then(|cost| cost.write_into(&chunk, &["usage"]));
            sse::write_data(out, &tagged.unwrap_or(chunk));
        }
        sse::write_data(out, b"[DONE]");
    }
}

/// Collects a reply into one body.
#[derive(Debug)]
struct CompletionWriter {
    frame: Frame,
    choices: BTreeMap<u32, (String, Option<FinishReason>)>,
}

impl CompletionWriter {
    fn choice(&mut self, index: u32) -> &mut (String, Option<FinishReason>) {
        let prompt = &self.frame.prompt;
        self.choices.entry(index).or_insert_with(|| (prompt.clone(), None))
    }
}

impl BodyWriter for CompletionWriter {
    fn add(&mut self, event: ChatEvent) {
        if let Some((index, text)) = piece(&event) {
            self.choice(index).0.push_str(text);
        }
        match event {
            ChatEvent::Start { id, created, .. } => {
                self.frame.adopt(&id, created);
                self.choice(0);
            }
            ChatEvent::Finish { choice, reason } => self.choice(choice).1 = Some(reason),
            _ => {}
        }
    }

    fn finish(self: Box<Self>, told: Option<&Told>) -> Value {
        let whole = |(index, (text, reason)): (&u32, &(String, Option<FinishReason>))| {
            choice(*index, text, Some(reason.as_ref().unwrap_or(&FinishReason::Stop)))
        };
        let choices: Vec<Value> = self.choices.iter().map(whole).collect();
        self.frame.object(choices.into(), told.map(|told| told.usage.to_openai()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::usage::Usage;

    fn read(rest: &str) -> Result<ChatRequest, Problem> {
        Completions.read(format!(r#"{{"model":"m",{rest}}}"#).as_bytes())
    }

    #[test]
    fn the_prompt_is_the_only_message() {
        for prompt in [r#""prompt":"Once""#, r#""prompt":["Once"]"#] {
            let chat = read(prompt).unwrap();
            assert_eq!((chat.origin, chat.messages.len(), chat.messages[0].role), (Api::Completions, 1, Role::User));
            assert_eq!(chat.messages[0].text(), "Once");
        }
        let chat = read(
            r#""prompt":"x","stream":true,"stream_options":{"include_usage":true},"max_tokens":9,"temperature":0.5,
            "stop":"a","seed":-3,"n":2,"user":"u","suffix":"","best_of":1,"logprobs":null,"guided_regex":"b*""#,
        )
        .unwrap();
        assert_eq!((chat.stream, chat.include_usage, chat.output.max_tokens), (true, true, Some(9)));
        assert_eq!((chat.sampling.temperature, chat.sampling.seed, chat.sampling.n), (Some(0.5), Some(-3), Some(2)));
        assert_eq!((chat.sampling.stop.as_slice(), chat.caller.user.as_deref()), (&["a".to_owned()][..], Some("u")));
        assert_eq!(chat.extra.keys().collect::<Vec<_>>(), ["guided_regex"]);
    }

    #[test]
    fn what_a_chat_model_cannot_do_is_refused_by_name() {
        for (rest, param, words) in [
            (r#""prompt":["a","b"]"#, "prompt", "one prompt"),
            (r#""prompt":[1,2]"#, "prompt", "tokens"),
            (r#""prompt":[[1,2]]"#, "prompt", "tokens"),
            (r#""prompt":[]"#, "prompt", "empty"),
            (r#""prompt":null"#, "prompt", "required"),
            (r#""prompt":["a"],"suffix":"z""#, "suffix", "middle"),
            (r#""prompt":"a","best_of":2"#, "best_of", "choose"),
            (r#""prompt":"a","logprobs":0"#, "logprobs", "log probabilities"),
            (r#""prompt":"a","temperature":3"#, "temperature", "0 to 2"),
            (r#""prompt":"a","stop":[5]"#, "stop[0]", "string"),
        ] {
            let problem = read(rest).unwrap_err();
            assert_eq!((problem.status, problem.param.as_deref()), (400, Some(param)), "{rest}");
            assert!(problem.message.contains(words), "{}", problem.message);
        }
    }

    fn events() -> Vec<ChatEvent> {
        let text = |text: &str| ChatEvent::Text { choice: 0, text: text.into(), logprobs: None };
        vec![
            ChatEvent::Start { id: "up".into(), model: "u".into(), created: Some(5) },
            ChatEvent::Reasoning { choice: 0, text: "hm".into() },
            text(" upon"),
            text(" a time"),
            ChatEvent::Finish { choice: 0, reason: FinishReason::Length },
        ]
    }

    fn told() -> Told {
        Usage { input: 3, output: 2, ..Usage::default() }.into()
    }

    fn identity() -> ReplyIdentity {
        ReplyIdentity { id: "r".into(), created: 1, model: "m".into() }
    }

    #[test]
    fn a_stream_says_what_the_body_says() {
        for (rest, expected) in [
            (r#""prompt":"Once""#, " upon a time"),
            (r#""prompt":"Once","echo":true,"stream_options":{"include_usage":true}"#, "Once upon a time"),
        ] {
            let chat = read(rest).unwrap();
            let mut body = Completions.whole(identity(), Completions.echo(&chat));
            events().into_iter().for_each(|event| body.add(event));
            let body = body.finish(Some(&told()));
            assert_eq!(
                body["choices"],
                json!([{"text": expected, "index": 0, "logprobs": null, "finish_reason": "length"}])
            );
            let id = ["id", "object", "model"].map(|name| body[name].as_str().unwrap());
            assert_eq!((id, &body["created"]), (["cmpl-up", "text_completion", "m"], &json!(5)));
            assert_eq!(body["usage"]["prompt_tokens"], 3);

            let mut writer = Completions.stream(identity(), Completions.echo(&chat));
            let mut out = Vec::new();
            events().iter().for_each(|event| writer.write(event, &mut out));
            writer.end(Some(&told()), None, &mut out);
            let text = String::from_utf8(out).unwrap();
            let data: Vec<&str> =
                text.split_terminator("\n\n").map(|line| line.strip_prefix("data: ").unwrap()).collect();
            assert_eq!(data.last(), Some(&"[DONE]"));
            let chunks: Vec<Value> =
                data[..data.len() - 1].iter().map(|it| serde_json::from_str(it).unwrap()).collect();
            let pieces = chunks.iter().filter_map(|chunk| chunk["choices"][0]["text"].as_str());
            assert_eq!(pieces.collect::<String>(), expected);
            let reasons = chunks.iter().filter_map(|chunk| chunk["choices"][0]["finish_reason"].as_str());
            assert_eq!(reasons.collect::<Vec<_>>(), ["length"]);
            assert!(chunks.iter().all(|chunk| chunk["id"] == "cmpl-up" && chunk["object"] == "text_completion"));
            let usage = chunks.iter().any(|chunk| chunk["usage"]["completion_tokens"] == 2);
            assert_eq!(usage, chat.include_usage);
        }
    }
}
