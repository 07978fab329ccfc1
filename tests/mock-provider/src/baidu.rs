//! Baidu's wenxinworkshop, the first API of Qianfan: the model in the path, the token in the query, and errors that
//! come with status 200. An endpoint is called `missing` when it shall not exist.

use serde_json::{Value, json};

use crate::answer::{self, Answer, Conversation, Ending, Limits, ToolQuestion, Want};
use crate::directives::{self, Directives};
use crate::endpoint::Endpoint;
use crate::http::Request;
use crate::journal::{Route, unix_ms};
use crate::openai::{arguments, mid_stream_error};
use crate::reply::{ApiError, Reply, put};
use crate::server::App;
use crate::tokens::{Issuer, Standing};
use crate::wire::{Event, EventStream, Framing, Kind};

/// `POST …/wenxinworkshop/chat/{endpoint}`.
#[derive(Debug)]
pub struct Wenxin {
    endpoint: String,
}

/// A request that passed the checks.
struct Asked<'a> {
    messages: &'a [Value],
    functions: Vec<(&'a str, &'a Value)>,
    forced: bool,
    stream: bool,
    json: bool,
    limits: Limits,
}

/// What is said in one reply.
struct Said<'a> {
    answer: Answer,
    call: Option<(&'a str, String)>,
    prompt: u64,
    completion: u64,
}

/// The endpoint that a path names.
pub fn find(path: &str) -> Option<Wenxin> {
    let (_, endpoint) = path.split_once("/rpc/2.0/ai_custom/v1/wenxinworkshop/chat/")?;
    (!endpoint.contains('/')).then(|| Wenxin { endpoint: directives::percent_decode(endpoint) })
}

fn bad(message: impl Into<String>) -> ApiError {
    ApiError::invalid(message).code("336003")
}

fn token<'a>(request: &Request<'a>) -> Option<&'a str> {
    request.query.split('&').find_map(|pair| pair.strip_prefix("access_token="))
}

fn standing(app: &App, token: &str, directives: &Directives) -> Standing {
    app.tokens.standing(&directives::percent_decode(token), Issuer::Baidu, directives)
}

impl Endpoint for Wenxin {
    fn route(&self) -> Route {
        Route::Wenxin
    }

    fn model<'a>(&'a self, _: &'a Value) -> &'a str {
        &self.endpoint
    }

    /// Nobody brings a key here.
    fn refuse_key(&self, _: &Request<'_>, _: &str) -> Option<ApiError> {
        None
    }

    fn unreadable(&self, _: &str) -> ApiError {
        ApiError::invalid("Invalid JSON").code("336002")
    }

    fn error_body(&self, error: &ApiError) -> String {
        let number = error.code.as_deref().and_then(|code| code.parse::<u32>().ok()).unwrap_or(match error.status {
            400 => 336_003,
            401 => 110,
            402 => 17,
            403 => 6,
            404 => 3,
            405 => 3,
            413 => 336_007,
            429 => 18,
            503 => 2,
            _ => 336_000,
        });
        json!({"error_code": number, "error_msg": error.message, "id": "as-mock"}).to_string()
    }

    fn error(&self, error: &ApiError) -> Reply {
        Reply::json(200, self.error_body(error))
    }

    fn verdict(&self, app: &App, request: &Request<'_>) -> Option<String> {
        let verdict = match token(request).map(|token| standing(app, token, &Directives::default())) {
            None => "none",
            Some(Standing::Good) => "token good",
            Some(Standing::Expired) => "token expired",
            Some(Standing::Unknown) => "token unknown",
        };
        Some(verdict.to_owned())
    }

    fn headers(&self, app: &App, reply: Reply) -> Reply {
        reply.header("x-baidu-request-id", app.id("", 32))
    }

    fn respond(
        &self,
        app: &App,
        request: &Request<'_>,
        body: &Value,
        directives: &Directives,
    ) -> Result<Reply, ApiError> {
        match token(request).map(|token| standing(app, token, directives)) {
            Some(Standing::Good) => {}
            Some(Standing::Expired) => return Err(ApiError::new(401, "Access token expired").code("111")),
            None | Some(Standing::Unknown) => {
                return Err(ApiError::new(401, "Access token invalid or no longer valid").code("110"));
            }
        }
        if self.endpoint == "missing" {
            return Err(ApiError::new(404, "Unsupported openapi method").code("3"));
        }
        let asked = check(body)?;
        let said = say(&asked, directives);
        let head = json!({"id": app.id("as-", 10), "object": "chat.completion", "created": unix_ms() / 1000});
        if asked.stream {
            return Ok(Reply::stream("text/event-stream; charset=utf-8", stream(&head, &said, directives)));
        }
        let mut reply = head;
        put(&mut reply, "result", json!(if directives.block { "" } else { &said.answer.text }));
        finish(&mut reply, &said, directives);
        Ok(Reply::json(200, reply.to_string()))
    }
}

// --- What is asked -------------------------------------------------------------------------------------------

fn check(body: &Value) -> Result<Asked<'_>, ApiError> {
    let field = |name: &str| body.get(name).filter(|value| !value.is_null());
    let messages = match field("messages") {
        Some(Value::Array(messages)) if !messages.is_empty() => messages.as_slice(),
        _ => return Err(bad("messages can not be empty")),
    };
    check_messages(messages)?;
    let number = |name: &str, fits: &dyn Fn(f64) -> bool, words: &str| match field(name).map(Value::as_f64) {
        None => Ok(()),
        Some(Some(number)) if fits(number) => Ok(()),
        Some(_) => Err(bad(format!("{name} {words}"))),
    };
    number("temperature", &|warmth| warmth > 0.0 && warmth <= 1.0, "must be in (0, 1.0]")?;
    number("top_p", &|share| (0.0..=1.0).contains(&share), "must be in [0, 1.0]")?;
    number("penalty_score", &|penalty| (1.0..=2.0).contains(&penalty), "must be in [1.0, 2.0]")?;
    for (name, fits, words) in [
        ("system", field("system").is_none_or(Value::is_string), "must be a string"),
        ("response_format", field("response_format").is_none_or(Value::is_string), "must be a string"),
        ("stream", field("stream").is_none_or(Value::is_boolean), "must be a boolean"),
        ("functions", field("functions").is_none_or(Value::is_array), "must be an array"),
    ] {
        if !fits {
            return Err(bad(format!("{name} {words}")));
        }
    }
    let mut functions = Vec::new();
    for function in field("functions").and_then(Value::as_array).into_iter().flatten() {
        let Some(name) = function.get("name").and_then(Value::as_str) else {
            return Err(bad("functions: name can not be empty"));
        };
        let parameters = function.get("parameters").unwrap_or(&Value::Null);
        if parameters.get("type").and_then(Value::as_str) != Some("object") {
            return Err(bad("functions: parameters must be an object"));
        }
        functions.push((name, parameters));
    }
    let named = body.pointer("/tool_choice/function/name").and_then(Value::as_str);
    if let Some(named) = named {
        functions.retain(|(name, _)| *name == named);
        if functions.is_empty() {
            return Err(bad("tool_choice: the function is not among functions"));
        }
    }
    let stop = field("stop").and_then(Value::as_array).into_iter().flatten();
    Ok(Asked {
        messages,
        functions,
        forced: named.is_some(),
        stream: field("stream") == Some(&Value::Bool(true)),
        json: field("response_format").is_some_and(|format| format == "json_object"),
        limits: Limits {
            max_tokens: field("max_output_tokens").and_then(Value::as_u64),
            stop: stop.filter_map(Value::as_str).map(str::to_owned).collect(),
        },
    })
}

/// Turns are taken strictly: the user or a function, then the assistant, and the user or a function at the end.
fn check_messages(messages: &[Value]) -> Result<(), ApiError> {
    if messages.len().is_multiple_of(2) {
        return Err(bad("the length of messages must be an odd number"));
    }
    for (at, message) in messages.iter().enumerate() {
        let role = message.get("role").and_then(Value::as_str).unwrap_or_default();
        if at == 0 && role != "user" {
            return Err(bad("the role of first message must be user"));
        }
        match (at % 2, role) {
            (0, "user" | "function") | (1, "assistant") => {}
            (0, _) => return Err(bad("the role of message with even index in the messages must be user or function")),
            _ => return Err(bad("the role of message with odd index in the messages must be assistant")),
        }
        let called = message.get("function_call").is_some_and(Value::is_object);
        match message.get("content") {
            Some(Value::String(content)) if !content.trim().is_empty() || called => {}
            None | Some(Value::Null) if called => {}
            None | Some(Value::Null | Value::String(_)) => return Err(bad("messages content can not be empty")),
            Some(_) => return Err(bad("messages content must be a string")),
        }
        if role == "function" {
            let before = at.checked_sub(1).and_then(|before| messages.get(before));
            let asked = before.and_then(|message| message.pointer("/function_call/name"));
            if asked.is_none() || asked != message.get("name") {
                return Err(bad("the function message must answer the function_call before it"));
            }
        }
    }
    Ok(())
}

fn say<'a>(asked: &Asked<'a>, directives: &Directives) -> Said<'a> {
    let mut conversation = Conversation::default();
    for message in asked.messages {
        let role = message.get("role").and_then(Value::as_str).unwrap_or_default();
        let text = message.get("content").and_then(Value::as_str).unwrap_or_default();
        let (clean, _) = directives::extract(text);
        conversation.hash_text(&clean);
        conversation.count_message(role, clean.len());
        conversation.tool_results.clear();
        match role {
            "function" => conversation.tool_results.push(clean.into_owned()),
            "user" => {
                conversation.turns += 1;
                conversation.question = clean.into_owned();
            }
            _ => {}
        }
    }
    conversation.count_extras(asked.functions.len());
    let question = ToolQuestion {
        tools: asked.functions.len(),
        forbidden: false,
        forced: asked.forced,
        // There is one call a turn.
        parallel: false,
        conversation: &conversation,
    };
    let called = answer::tool_calls(question, directives) > 0;
    let call = asked.functions.first().filter(|_| called);
    let call = call.map(|(name, parameters)| (*name, arguments(parameters, &conversation, 0)));
    let want = if asked.json { Want::JsonObject } else { Want::Prose };
    let answer = match &call {
        None => answer::compose(&conversation, directives, want, &asked.limits, 0),
        Some(_) => Answer { text: String::new(), pieces: Vec::new(), ending: Ending::Stop },
    };
    let spoken = call.as_ref().map_or(answer.tokens(), |(_, arguments)| crate::side::tokens(arguments));
    Said {
        prompt: directives.usage_in.unwrap_or(conversation.prompt_tokens),
        completion: directives.usage_out.unwrap_or(spoken),
        answer,
        call,
    }
}

// --- What is said --------------------------------------------------------------------------------------------

/// What stands at the end: in the whole reply, and in a stream's last event.
fn finish(reply: &mut Value, said: &Said<'_>, directives: &Directives) {
    let length = said.answer.ending == Ending::Length;
    let reason = match (&directives.finish, &said.call) {
        (Some(reason), _) => reason.as_str(),
        _ if directives.block => "content_filter",
        (None, Some(_)) => "function_call",
        (None, None) if length => "length",
        (None, None) => "normal",
    };
    put(reply, "is_truncated", json!(length));
    put(reply, "need_clear_history", json!(directives.block));
    if directives.block {
        put(reply, "ban_round", json!(-1));
    }
    put(reply, "finish_reason", json!(reason));
    if let Some((name, arguments)) = &said.call {
        let call = json!({"name": name, "arguments": arguments, "thoughts": "I need the function for that."});
        put(reply, "function_call", call);
    }
    if !directives.no_usage {
        put(reply, "usage", usage(said, said.completion));
    }
}

fn usage(said: &Said<'_>, completion: u64) -> Value {
    let total = said.prompt.saturating_add(completion);
    json!({"prompt_tokens": said.prompt, "completion_tokens": completion, "total_tokens": total})
}

fn stream(head: &Value, said: &Said<'_>, directives: &Directives) -> EventStream {
    let error = mid_stream_error(directives);
    let number = error.code.as_deref().and_then(|code| code.parse::<u32>().ok()).unwrap_or(336_100);
    let error = json!({"error_code": number, "error_msg": error.message, "id": head.get("id")});
    let mut events = EventStream::new(Framing::Sse, Event::fixed(Kind::Done, None, error.to_string()));
    // The last piece of text comes with the end.
    let all: &[_] = if directives.block { &[] } else { &said.answer.pieces };
    let (last, before) = match all.split_last() {
        Some((last, before)) => (Some(*last), before),
        None => (None, all),
    };
    let text = |(from, to): (u32, u32)| said.answer.text.get(from as usize..to as usize).unwrap_or_default();
    let chunk = |number: usize, end: bool, text: &str| {
        let mut chunk = head.clone();
        put(&mut chunk, "sentence_id", json!(number));
        put(&mut chunk, "is_end", json!(end));
        put(&mut chunk, "is_truncated", json!(false));
        put(&mut chunk, "result", json!(text));
        put(&mut chunk, "need_clear_history", json!(false));
        if !directives.no_usage {
            put(&mut chunk, "usage", usage(said, 0));
        }
        chunk
    };
    for (number, piece) in before.iter().enumerate() {
        events.push(Kind::Content, None, chunk(number, false, text(*piece)).to_string());
    }
    let mut end = chunk(before.len(), true, last.map_or("", text));
    finish(&mut end, said, directives);
    let kind = if directives.no_done { Kind::Done } else { Kind::Finish };
    events.push(kind, None, end.to_string());
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(body: &Value) -> String {
        match check(body) {
            Ok(_) => panic!("{body} passes"),
            Err(error) => {
                assert_eq!(error.code.as_deref(), Some("336003"));
                error.message
            }
        }
    }

    fn say_as(role: &str, content: &str) -> Value {
        json!({"role": role, "content": content})
    }

    fn body(more: &[(&str, Value)]) -> Value {
        let mut body = json!({"messages": [say_as("user", "Hi")]});
        for (name, value) in more {
            put(&mut body, name, value.clone());
        }
        body
    }

    #[test]
    fn turns_are_taken_strictly() {
        let user = say_as("user", "Hi");
        let assistant = say_as("assistant", "Ho");
        for (messages, words) in [
            (json!([]), "can not be empty"),
            (json!([user, assistant]), "odd number"),
            (json!([say_as("system", "x"), assistant, user]), "first message"),
            (json!([user, user, user]), "odd index"),
            (json!([user, assistant, assistant]), "even index"),
            (json!([say_as("user", " ")]), "content can not be empty"),
            (json!([user, say_as("assistant", ""), user]), "content can not be empty"),
            (json!([{"role": "user", "content": [{"type": "text", "text": "x"}]}]), "must be a string"),
            (json!([user, assistant, {"role": "function", "name": "f", "content": "1"}]), "function_call before it"),
        ] {
            let message = refusal(&body(&[("messages", messages.clone())]));
            assert!(message.contains(words), "{messages}: {message}");
        }
        let call = json!({"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": "{}"}});
        let result = json!({"role": "function", "name": "f", "content": "{}"});
        assert!(check(&body(&[("messages", json!([user, call, result]))])).is_ok());
    }

    #[test]
    fn values_have_the_bounds_of_the_api() {
        for (name, value) in [
            ("temperature", json!(0)),
            ("temperature", json!(1.01)),
            ("top_p", json!(1.5)),
            ("penalty_score", json!(0.5)),
            ("system", json!(["x"])),
            ("response_format", json!({"type": "json_object"})),
            ("stream", json!("yes")),
            ("functions", json!({})),
            ("functions", json!([{"parameters": {"type": "object"}}])),
            ("functions", json!([{"name": "f"}])),
            ("tool_choice", json!({"type": "function", "function": {"name": "g"}})),
        ] {
            assert!(refusal(&body(&[(name, value)])).starts_with(name), "{name}");
        }
        assert!(check(&body(&[("temperature", json!(1)), ("response_format", json!("json_object"))])).is_ok());
    }

    #[test]
    fn errors_are_numbers() {
        let wenxin = find("/x/rpc/2.0/ai_custom/v1/wenxinworkshop/chat/completions_pro").unwrap();
        assert_eq!(wenxin.model(&Value::Null), "completions_pro");
        for (status, number) in [(429, 18), (500, 336_000), (503, 2), (404, 3)] {
            let reply = wenxin.error(&ApiError::new(status, "x"));
            assert_eq!(reply.status, 200);
            let body: Value = serde_json::from_str(&wenxin.error_body(&ApiError::new(status, "x"))).unwrap();
            assert_eq!(body["error_code"], number);
        }
        assert!(find("/rpc/2.0/ai_custom/v1/wenxinworkshop/embeddings/v1").is_none());
    }
}
