//! The Responses API: responses whole and streamed, kept, fetched, cancelled and deleted.
//!
//! The proof of reasoning (`encrypted_content`) that a reply with `signature=1` hands out is demanded back with the
//! calls it belongs to, and one that was not made here is refused.

mod check;
mod items;
mod reply;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Mutex;

use serde_json::{Value, json};

pub use self::check::{Asked, Input, Strictness, Tool, check_sampling, reasons};
use crate::answer::{self, Answer, Conversation, Ending, ToolQuestion, fnv};
use crate::directives::{self, Directives};
use crate::endpoint::Endpoint;
use crate::http::Request;
use crate::journal::{Route, unix_ms};
use crate::openai::{self, content_text};
use crate::reply::{ApiError, Reply, put};
use crate::schema;
use crate::server::{App, lock};

/// Most responses that are kept. Beyond it all go.
const MAX_KEPT: usize = 10_000;
/// What a proof of reasoning begins with, and the letters of the number it carries.
const PROOF: (&str, usize) = ("gAAAAABmock", 20);

/// A response that can be asked for again.
#[derive(Debug, Clone)]
struct Kept {
    response: Value,
    /// What it answers, the items of earlier responses included.
    input: Vec<Value>,
}

/// What responses leave behind.
#[derive(Debug, Default)]
pub struct Store {
    kept: Mutex<HashMap<String, Kept>>,
    /// The proof that must come with a call, by the call's id.
    proofs: Mutex<HashMap<String, (String, String)>>,
}

impl Store {
    /// Forgets all of it.
    pub fn clear(&self) {
        lock(&self.kept).clear();
        lock(&self.proofs).clear();
    }

    fn keep(&self, id: &str, kept: Kept) {
        let mut all = lock(&self.kept);
        if all.len() >= MAX_KEPT {
            all.clear();
        }
        all.insert(id.to_owned(), kept);
    }

    fn get(&self, id: &str) -> Result<Kept, ApiError> {
        lock(&self.kept)
            .get(id)
            .cloned()
            .ok_or_else(|| ApiError::new(404, format!("Response with id '{id}' not found.")))
    }

    fn demand(&self, calls: &[Call], reasoning_id: &str, proof: &str) {
        let mut proofs = lock(&self.proofs);
        if proofs.len() >= MAX_KEPT {
            proofs.clear();
        }
        for call in calls {
            proofs.insert(call.call_id.clone(), (reasoning_id.to_owned(), proof.to_owned()));
        }
    }

    /// Refuses proofs that nobody gave, and calls that come without theirs.
    fn check_proofs(&self, items: &[Value]) -> Result<(), ApiError> {
        let proofs = lock(&self.proofs);
        for (at, item) in items.iter().enumerate() {
            let text = |name: &str| item.get(name).and_then(Value::as_str);
            match text("type") {
                Some("reasoning") => match text("encrypted_content") {
                    Some(proof) if !is_proof(proof) => {
                        let start: String = proof.chars().take(4).collect();
                        let end: String = proof.chars().skip(proof.chars().count().saturating_sub(4)).collect();
                        return Err(ApiError::invalid(format!(
                            "The encrypted content {start}...{end} could not be verified. Reason: Encrypted content \
                             could not be decrypted or parsed."
                        ))
                        .code("invalid_encrypted_content"));
                    }
                    _ => {}
                },
                Some("function_call") => {
                    let known = text("call_id").and_then(|id| proofs.get(id));
                    let brought = |proof: &str| {
                        items.iter().take(at).any(|item| {
                            item.get("encrypted_content").and_then(Value::as_str).is_some_and(|given| given == proof)
                        })
                    };
                    if let Some((reasoning, proof)) = known
                        && !brought(proof)
                    {
                        return Err(ApiError::invalid(format!(
                            "Item '{}' of type 'function_call' was provided without its required 'reasoning' item: \
                             '{reasoning}'.",
                            text("id").or(text("call_id")).unwrap_or_default()
                        ))
                        .param("input"));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A proof of reasoning that [`is_proof`] knows again.
fn proof(app: &App) -> String {
    let (prefix, length) = PROOF;
    let word = app.id("", length);
    format!("{prefix}{word}{:016x}", fnv(0, word.as_bytes()))
}

fn is_proof(text: &str) -> bool {
    let (prefix, length) = PROOF;
    text.strip_prefix(prefix)
        .and_then(|rest| rest.split_at_checked(length))
        .is_some_and(|(word, sum)| sum == format!("{:016x}", fnv(0, word.as_bytes())))
}

/// `…/responses` and what lies below it.
#[derive(Debug)]
pub struct Responses {
    path: Path,
    strictness: Strictness,
}

/// One of the paths below `/responses`.
#[derive(Debug)]
enum Path {
    Create,
    InputTokens,
    Compact,
    One(String),
    Cancel(String),
    InputItems(String),
}

/// The endpoint that a path names.
pub fn find(path: &str, strictness: Strictness) -> Option<Responses> {
    let path = below(path)?;
    Some(Responses { path, strictness })
}

fn below(path: &str) -> Option<Path> {
    if path.ends_with("/responses") {
        return Some(Path::Create);
    }
    let (_, rest) = path.rsplit_once("/responses/")?;
    match rest.split_once('/') {
        None if rest == "input_tokens" => Some(Path::InputTokens),
        None if rest == "compact" => Some(Path::Compact),
        None => Some(Path::One(directives::percent_decode(rest))),
        Some((id, "cancel")) => Some(Path::Cancel(directives::percent_decode(id))),
        Some((id, "input_items")) => Some(Path::InputItems(directives::percent_decode(id))),
        Some(_) => None,
    }
}

impl Endpoint for Responses {
    fn route(&self) -> Route {
        Route::Responses
    }

    fn methods(&self) -> &'static [&'static str] {
        match &self.path {
            Path::One(_) => &["GET", "HEAD", "DELETE"],
            Path::InputItems(_) => &["GET", "HEAD"],
            Path::Create | Path::InputTokens | Path::Compact | Path::Cancel(_) => &["POST"],
        }
    }

    fn needs_body(&self) -> bool {
        !matches!(self.path, Path::Cancel(_))
    }

    fn user_text<'a>(&self, body: &'a Value) -> Option<Cow<'a, str>> {
        match body.get("input")? {
            Value::String(text) => Some(Cow::Borrowed(text)),
            Value::Array(items) => items
                .iter()
                .rev()
                .filter(|item| item.get("role").and_then(Value::as_str) == Some("user"))
                .filter_map(|item| content_text(item.get("content")?))
                .find(|text| !text.is_empty()),
            _ => None,
        }
    }

    fn respond(
        &self,
        app: &App,
        request: &Request<'_>,
        body: &Value,
        directives: &Directives,
    ) -> Result<Reply, ApiError> {
        let store = &app.responses;
        match &self.path {
            Path::Create => create(app, body, directives, self.strictness),
            Path::InputTokens => input_tokens(app, body, self.strictness),
            Path::Compact => compact(app, body, directives, self.strictness),
            Path::One(id) if request.method == "DELETE" => {
                store.get(id)?;
                lock(&store.kept).remove(id);
                Ok(Reply::json(200, json!({"id": id, "object": "response", "deleted": true}).to_string()))
            }
            Path::One(id) => Ok(Reply::json(200, store.get(id)?.response.to_string())),
            Path::InputItems(id) => {
                let mut items = store.get(id)?.input;
                // The newest come first unless asked otherwise.
                if !request.query.split('&').any(|pair| pair == "order=asc") {
                    items.reverse();
                }
                let id = |item: Option<&Value>| item.and_then(|item| item.get("id")).cloned().unwrap_or_default();
                let page = json!({
                    "object": "list", "first_id": id(items.first()), "last_id": id(items.last()), "has_more": false,
                    "data": items,
                });
                Ok(Reply::json(200, page.to_string()))
            }
            Path::Cancel(id) => {
                let mut kept = store.get(id)?;
                if kept.response.get("background") != Some(&Value::Bool(true)) {
                    return Err(ApiError::invalid("Cannot cancel a synchronous response."));
                }
                put(&mut kept.response, "status", json!("cancelled"));
                put(&mut kept.response, "output", json!([]));
                store.keep(id, kept.clone());
                Ok(Reply::json(200, kept.response.to_string()))
            }
        }
    }
}

/// One tool call of an answer.
#[derive(Debug)]
struct Call {
    item_id: String,
    call_id: String,
    name: String,
    arguments: String,
    custom: bool,
}

/// Reasoning that precedes an answer.
#[derive(Debug)]
struct Thought {
    item_id: String,
    answer: Answer,
    proof: Option<String>,
    /// Its words are told in full, as open models do, or as a summary, or not at all.
    told: Told,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Full,
    Summary,
    Hidden,
}

/// How a response ends.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Completed,
    /// For this reason.
    Incomplete(&'static str),
    Failed,
}

/// Everything that is said in one response.
#[derive(Debug)]
struct Said {
    thought: Option<Thought>,
    message_id: String,
    /// None when there are only calls.
    message: Option<Answer>,
    refusal: bool,
    citations: usize,
    calls: Vec<Call>,
    end: End,
    usage: Value,
}

/// Answers `POST …/responses`.
fn create(app: &App, body: &Value, directives: &Directives, strictness: Strictness) -> Result<Reply, ApiError> {
    let asked = check::check(body, strictness)?;
    let earlier = earlier(app, &asked)?;
    if let Input::Items(items) = asked.input
        && strictness == Strictness::Closed
    {
        if !asked.fields.contains_key("conversation") {
            items::check_results(items, &earlier)?;
        }
        app.responses.check_proofs(items)?;
    }
    let conversation = converse(&asked, &earlier);
    let said = say(app, &asked, &conversation, directives);
    if let Some(Thought { item_id, proof: Some(proof), .. }) = &said.thought
        && directives.signature
    {
        app.responses.demand(&said.calls, item_id, proof);
    }
    let id = app.id("resp_", 48);
    let created = unix_ms() / 1000;
    let echo = reply::echo(&asked, &id, created);
    let whole = reply::finished(&echo, &said, created, directives);
    if asked.store {
        let mut input = earlier;
        input.extend(kept_input(app, &asked));
        app.responses.keep(&id, Kept { response: whole.clone(), input });
    }
    if asked.stream {
        let stream = reply::stream(&asked, &said, &echo, whole, directives);
        return Ok(Reply::stream("text/event-stream; charset=utf-8", stream));
    }
    if asked.background {
        let mut queued = echo;
        put(&mut queued, "status", json!("queued"));
        return Ok(Reply::json(200, queued.to_string()));
    }
    Ok(Reply::json(200, whole.to_string()))
}

/// The items before this request's own: those of the response it goes on from.
fn earlier(app: &App, asked: &Asked<'_>) -> Result<Vec<Value>, ApiError> {
    let Some(id) = asked.fields.get("previous_response_id").and_then(Value::as_str) else {
        return Ok(Vec::new());
    };
    let kept = app.responses.get(id).map_err(|_| {
        ApiError::invalid(format!("Previous response with id '{id}' not found."))
            .param("previous_response_id")
            .code("previous_response_not_found")
    })?;
    let mut items = kept.input;
    items.extend(kept.response.get("output").and_then(Value::as_array).into_iter().flatten().cloned());
    Ok(items)
}

/// The request's input as it is listed later: items with ids.
fn kept_input(app: &App, asked: &Asked<'_>) -> Vec<Value> {
    match asked.input {
        Input::Text(text) => vec![json!({
            "type": "message", "id": app.id("msg_", 48), "status": "completed", "role": "user",
            "content": [{"type": "input_text", "text": text}],
        })],
        Input::Items(items) => items
            .iter()
            .map(|item| {
                let mut item = item.clone();
                if item.get("id").is_none_or(Value::is_null) {
                    let prefix = match item.get("type").and_then(Value::as_str) {
                        Some("function_call") => "fc_",
                        Some("function_call_output") => "fco_",
                        Some("reasoning") => "rs_",
                        _ => "msg_",
                    };
                    put(&mut item, "id", json!(app.id(prefix, 48)));
                }
                item
            })
            .collect(),
    }
}

/// `POST …/responses/input_tokens`.
fn input_tokens(app: &App, body: &Value, strictness: Strictness) -> Result<Reply, ApiError> {
    let asked = check::check(body, strictness)?;
    let conversation = converse(&asked, &earlier(app, &asked)?);
    let count = json!({"object": "response.input_tokens", "input_tokens": conversation.prompt_tokens});
    Ok(Reply::json(200, count.to_string()))
}

/// `POST …/responses/compact`: the user's messages stay, the rest becomes one opaque item.
fn compact(app: &App, body: &Value, directives: &Directives, strictness: Strictness) -> Result<Reply, ApiError> {
    let asked = check::check(body, strictness)?;
    let earlier = earlier(app, &asked)?;
    let conversation = converse(&asked, &earlier);
    let mut output: Vec<Value> = earlier.into_iter().chain(kept_input(app, &asked)).collect();
    output.retain(|item| item.get("role").and_then(Value::as_str) == Some("user"));
    output.push(json!({"id": app.id("cmp_", 48), "type": "compaction", "encrypted_content": proof(app)}));
    let usage = reply::usage(&conversation, 8, 0, directives);
    let compaction = json!({
        "id": app.id("resp_", 48), "object": "response.compaction", "created_at": unix_ms() / 1000, "output": output,
        "usage": usage,
    });
    Ok(Reply::json(200, compaction.to_string()))
}

fn converse(asked: &Asked<'_>, earlier: &[Value]) -> Conversation {
    let mut conversation = Conversation::default();
    if let Some(instructions) = asked.fields.get("instructions").and_then(Value::as_str) {
        conversation.has_system = true;
        conversation.hash_text(instructions);
        conversation.count_message("system", instructions.len());
    }
    for item in earlier {
        hear(&mut conversation, item);
    }
    match asked.input {
        Input::Text(text) => hear(&mut conversation, &json!({"role": "user", "content": text})),
        Input::Items(items) => items.iter().for_each(|item| hear(&mut conversation, item)),
    }
    conversation.count_extras(asked.tools.len());
    conversation
}

/// Takes one item into account.
fn hear(conversation: &mut Conversation, item: &Value) {
    let text = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default();
    match text("type") {
        "function_call" | "custom_tool_call" => {
            let arguments = if text("arguments").is_empty() { text("input") } else { text("arguments") };
            conversation.hash_text(arguments);
            conversation.count_message("assistant", arguments.len());
            conversation.tool_results.clear();
        }
        "function_call_output" | "custom_tool_call_output" => {
            let result = item.get("output").and_then(content_text).unwrap_or_default();
            conversation.hash_text(&result);
            conversation.count_message("tool", result.len());
            conversation.tool_results.push(result.into_owned());
        }
        "" | "message" => {
            let said = item.get("content").and_then(content_text).unwrap_or_default();
            let (clean, _) = directives::extract(&said);
            conversation.hash_text(&clean);
            conversation.count_message(text("role"), clean.len());
            conversation.tool_results.clear();
            match text("role") {
                "system" | "developer" => conversation.has_system = true,
                "user" => {
                    conversation.turns += 1;
                    if !said.is_empty() {
                        conversation.question = clean.into_owned();
                    }
                    for part in item.get("content").and_then(Value::as_array).into_iter().flatten() {
                        match part.get("type").and_then(Value::as_str) {
                            Some("input_image") => conversation.images += 1,
                            Some("input_file") => conversation.documents += 1,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        _ => {}
    }
}

fn say(app: &App, asked: &Asked<'_>, conversation: &Conversation, directives: &Directives) -> Said {
    let question = ToolQuestion {
        tools: asked.tools.len(),
        forbidden: asked.forbidden,
        forced: asked.forced,
        parallel: asked.parallel,
        conversation,
    };
    let count = answer::tool_calls(question, directives);
    let calls: Vec<Call> = asked
        .tools
        .iter()
        .cycle()
        .take(count)
        .enumerate()
        .map(|(number, tool)| Call {
            item_id: app.id(if tool.custom { "ctc_" } else { "fc_" }, 48),
            call_id: app.id("call_", 24),
            name: tool.name.to_owned(),
            arguments: arguments(tool, conversation, number / asked.tools.len().max(1)),
            custom: tool.custom,
        })
        .collect();
    let thought = think(app, asked, conversation, directives);
    let message = (calls.is_empty() || directives.text.is_some())
        .then(|| answer::compose(conversation, directives, asked.want, &asked.limits, 0));
    let end = match (directives.finish.as_deref(), message.as_ref().map(|answer| &answer.ending)) {
        (Some("failed"), _) => End::Failed,
        (Some("content_filter"), _) => End::Incomplete("content_filter"),
        (Some("max_output_tokens" | "length"), _) => End::Incomplete("max_output_tokens"),
        _ if directives.block => End::Incomplete("content_filter"),
        (None, Some(Ending::Length)) => End::Incomplete("max_output_tokens"),
        _ => End::Completed,
    };
    let thinking = thought.as_ref().map_or(0, |thought| thought.answer.tokens());
    let reasoning = directives.reasoning.unwrap_or(thinking);
    let argument_tokens: usize =
        calls.iter().map(|call| answer::sized_spans(&call.arguments, openai::ARGUMENT_BYTES).len()).sum();
    let spoken = message
        .as_ref()
        .map_or(0, Answer::tokens)
        .saturating_add(u64::try_from(argument_tokens).unwrap_or_default())
        .saturating_add(reasoning);
    Said {
        thought,
        message_id: app.id("msg_", 48),
        message,
        refusal: directives.refusal,
        citations: directives.citations.unwrap_or(0),
        calls,
        end,
        usage: reply::usage(conversation, spoken, reasoning, directives),
    }
}

fn arguments(tool: &Tool<'_>, conversation: &Conversation, variant: usize) -> String {
    if tool.custom {
        return format!("Input for {}: {}", tool.name, conversation.question);
    }
    if tool.parameters.is_null() {
        return "{}".to_owned();
    }
    schema::example(tool.parameters, &conversation.question, variant).to_string()
}

fn think(app: &App, asked: &Asked<'_>, conversation: &Conversation, directives: &Directives) -> Option<Thought> {
    let wanted = directives.reasoning_content || directives.signature || directives.reasoning.is_some_and(|n| n > 0);
    wanted.then(|| Thought {
        item_id: app.id("rs_", 48),
        answer: answer::thinking(conversation, directives.reasoning),
        proof: asked.encrypted.then(|| proof(app)),
        told: match (directives.reasoning_content, asked.summary) {
            (true, _) => Told::Full,
            (false, true) => Told::Summary,
            (false, false) => Told::Hidden,
        },
    })
}
