//! A deliberately odd provider that follows nobody's standard, for the gateway's generic HTTP adapter.
//!
//! `POST /generate` with `{"engine", "prompt", "settings": {"max_length", "heat"}, "live"}`. The reply is one
//! JSON document, or, with `live`, lines of JSON; a client that accepts `text/event-stream` gets the same
//! objects as events.

use serde_json::Value;

use crate::answer::{self, Answer, Conversation, Ending, Limits, Want};
use crate::directives::{self, Directives};
use crate::http::Request;
use crate::reply::{ApiError, Reply, json_string};
use crate::wire::{Event, EventStream, Framing, Kind, Template};

/// A fault with its own number, beside the status.
fn fault(number: u16, explanation: &str) -> ApiError {
    ApiError::invalid(explanation).code(number.to_string())
}

/// A request that cannot be read at all.
pub fn unreadable() -> ApiError {
    fault(4000, "the body is not JSON")
}

pub fn unauthorised() -> ApiError {
    ApiError::new(401, "the key is missing or wrong").code("4010")
}

/// Renders an error. The number is the directive's `error_code`, or ten times the status.
pub fn error_body(error: &ApiError) -> String {
    let number =
        error.code.as_deref().and_then(|code| code.parse::<u32>().ok()).unwrap_or_else(|| u32::from(error.status) * 10);
    format!(r#"{{"fault":{{"explanation":{},"number":{number}}}}}"#, json_string(&error.message))
}

/// Answers a request whose directives are known.
pub fn respond(http: &Request<'_>, body: &Value, directives: &Directives) -> Result<Reply, ApiError> {
    let Some(engine) = body.get("engine").and_then(Value::as_str).filter(|engine| !engine.is_empty()) else {
        return Err(fault(4001, "engine must be a string"));
    };
    let Some(prompt) = body.get("prompt").and_then(Value::as_str) else {
        return Err(fault(4002, "prompt must be a string"));
    };
    let setting = |name: &str| body.get("settings").and_then(|settings| settings.get(name)).filter(|v| !v.is_null());
    let max_tokens = match setting("max_length").map(Value::as_u64) {
        None => None,
        Some(Some(length)) if length >= 1 => Some(length),
        Some(_) => {
            return Err(fault(4003, "settings.max_length must be a positive whole number"));
        }
    };
    if setting("heat").is_some_and(|heat| !heat.as_f64().is_some_and(|heat| (0.0..=2.0).contains(&heat))) {
        return Err(fault(4004, "settings.heat must be a number between 0 and 2"));
    }
    let live = match body.get("live") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(live)) => *live,
        Some(_) => return Err(fault(4005, "live must be true or false")),
    };

    let (clean, _) = directives::extract(prompt);
    let mut conversation = Conversation { turns: 1, ..Conversation::default() };
    conversation.hash_text(engine);
    conversation.hash_text(&clean);
    conversation.count_message("user", clean.len());
    conversation.question = clean.into_owned();
    let limits = Limits { max_tokens, stop: Vec::new() };
    let answer = answer::compose(&conversation, directives, Want::Prose, &limits, 0);
    let why = directives.finish.as_deref().unwrap_or(match answer.ending {
        Ending::Length => "length",
        Ending::Stop | Ending::StopSequence(_) => "eos",
    });
    let meter = if directives.no_usage {
        String::new()
    } else {
        format!(
            r#","meter":{{"in":{},"out":{}}}"#,
            directives.usage_in.unwrap_or(conversation.prompt_tokens),
            directives.usage_out.unwrap_or(answer.tokens())
        )
    };
    if !live {
        return Ok(Reply::json(
            200,
            format!(
                r#"{{"result":{{"text":{},"why_stopped":{}}}{meter}}}"#,
                json_string(&answer.text),
                json_string(why)
            ),
        ));
    }
    let sse = http.header("accept").is_some_and(|accept| accept.to_ascii_lowercase().contains("text/event-stream"));
    let (framing, content_type) =
        if sse { (Framing::Sse, "text/event-stream") } else { (Framing::Ndjson, "application/x-ndjson") };
    Ok(Reply::stream(content_type, stream(framing, &answer, why, &meter, directives)))
}

fn stream(framing: Framing, answer: &Answer, why: &str, meter: &str, directives: &Directives) -> EventStream {
    let failure = ApiError {
        code: directives.error_code.clone(),
        ..ApiError::new(500, directives.error_message.as_deref().unwrap_or("the engine stopped unexpectedly"))
    };
    let mut events = EventStream::new(framing, Event::fixed(Kind::Done, None, error_body(&failure)));
    let template = events.template(Template {
        name: None,
        head: r#"{"piece":"#.to_owned(),
        source: answer.text.clone(),
        tail: "}".to_owned(),
    });
    for piece in &answer.pieces {
        events.push_delta(template, *piece);
    }
    events.push(Kind::Finish, None, format!(r#"{{"end":{}{meter}}}"#, json_string(why)));
    if framing == Framing::Sse {
        events.push(Kind::Done, None, "[END]".to_owned());
    }
    events
}
