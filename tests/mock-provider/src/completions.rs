//! The legacy Completions API of OpenAI: a prompt and its continuation.

use std::borrow::Cow;

use serde_json::Value;

use crate::answer::{self, Answer, Conversation, Ending, Limits, Want};
use crate::directives::{self, Directives};
use crate::endpoint::Endpoint;
use crate::http::Request;
use crate::journal::{Route, unix_ms};
use crate::openai::{check_bool, check_decimal, check_integer, check_stop, mid_stream_error, wrong_type};
use crate::reply::{ApiError, Reply, json_string};
use crate::server::App;
use crate::wire::{Event, EventStream, Framing, Kind, Template};

/// Tokens of an answer when the request does not say.
const DEFAULT_TOKENS: u64 = 16;
/// Most tokens in `logprobs`.
const MAX_LOGPROBS: u64 = 5;

/// `POST …/completions`.
#[derive(Debug)]
pub struct Completions;

/// A request that passed the checks.
struct Asked<'a> {
    model: &'a str,
    prompts: Vec<Cow<'a, str>>,
    choices: usize,
    limits: Limits,
    echo: bool,
    stream: bool,
    include_usage: bool,
}

/// What continues one prompt.
struct Choice {
    answer: Answer,
    /// The prompt, where it is to be said again.
    echo: String,
}

impl Endpoint for Completions {
    fn route(&self) -> Route {
        Route::Completions
    }

    fn user_text<'a>(&self, body: &'a Value) -> Option<Cow<'a, str>> {
        match body.get("prompt")? {
            Value::String(prompt) => Some(Cow::Borrowed(prompt)),
            Value::Array(prompts) => prompts.iter().rev().find_map(Value::as_str).map(Cow::Borrowed),
            _ => None,
        }
    }

    fn respond(&self, app: &App, _: &Request<'_>, body: &Value, directives: &Directives) -> Result<Reply, ApiError> {
        let asked = check(body)?;
        let (choices, usage) = say(&asked, directives);
        let head = format!(
            r#"{{"id":"{}","object":"text_completion","created":{},"model":{},"choices":["#,
            app.id("cmpl-", 29),
            unix_ms() / 1000,
            json_string(asked.model)
        );
        if asked.stream {
            return Ok(Reply::stream("text/event-stream", stream(&asked, &choices, &usage, &head, directives)));
        }
        let said: Vec<String> = choices
            .iter()
            .enumerate()
            .map(|(index, choice)| {
                let text = format!("{}{}", choice.echo, choice.answer.text);
                choice_json(index, &json_string(&text), &json_string(finish(choice, directives)))
            })
            .collect();
        let usage = if directives.no_usage { String::new() } else { format!(r#","usage":{usage}"#) };
        Ok(Reply::json(200, format!("{head}{}]{usage}}}", said.join(","))))
    }
}

fn check(body: &Value) -> Result<Asked<'_>, ApiError> {
    let field = |name: &str| body.get(name).filter(|value| !value.is_null());
    let model = match field("model") {
        None => return Err(ApiError::invalid("you must provide a model parameter")),
        Some(Value::String(model)) => model.as_str(),
        Some(other) => return Err(wrong_type("model", "a string", other)),
    };
    let chat = ["gpt-4", "gpt-5", "chatgpt", "o1", "o3", "o4"].iter().any(|family| model.starts_with(family));
    if chat || (model.starts_with("gpt-3.5-turbo") && !model.contains("instruct")) {
        return Err(ApiError::new(
            404,
            "This is a chat model and not supported in the v1/completions endpoint. Did you mean to use \
             v1/chat/completions?",
        )
        .param("model"));
    }
    let choices = check_integer("n", field("n"), 1, 128)?.unwrap_or(1);
    let best_of = check_integer("best_of", field("best_of"), 1, 20)?.unwrap_or(choices);
    if best_of < choices {
        return Err(ApiError::invalid(
            "You requested that the server return more choices than it will generate (HINT: You must specify \
             'best_of' >= 'n').",
        )
        .param("best_of"));
    }
    check_integer("logprobs", field("logprobs"), 0, MAX_LOGPROBS)?;
    check_decimal("temperature", field("temperature"), 0.0, 2.0)?;
    check_decimal("top_p", field("top_p"), 0.0, 1.0)?;
    check_decimal("presence_penalty", field("presence_penalty"), -2.0, 2.0)?;
    check_decimal("frequency_penalty", field("frequency_penalty"), -2.0, 2.0)?;
    if let Some(suffix) = field("suffix").filter(|suffix| !suffix.is_string()) {
        return Err(wrong_type("suffix", "a string", suffix));
    }
    let stream = check_bool("stream", field("stream"))?.unwrap_or(false);
    let include_usage = match field("stream_options") {
        Some(_) if !stream => {
            return Err(ApiError::invalid("The 'stream_options' parameter is only allowed when 'stream' is enabled.")
                .param("stream_options"));
        }
        options => {
            let wanted = options.and_then(|options| options.get("include_usage"));
            check_bool("stream_options.include_usage", wanted)?.unwrap_or(false)
        }
    };
    Ok(Asked {
        model,
        prompts: prompts(field("prompt"))?,
        choices: usize::try_from(choices).unwrap_or(1),
        limits: Limits {
            max_tokens: Some(check_integer("max_tokens", field("max_tokens"), 0, u64::MAX)?.unwrap_or(DEFAULT_TOKENS)),
            stop: check_stop(field("stop"))?,
        },
        echo: check_bool("echo", field("echo"))?.unwrap_or(false),
        stream,
        include_usage,
    })
}

/// A text, several texts, a list of tokens, or several such lists.
fn prompts(prompt: Option<&Value>) -> Result<Vec<Cow<'_, str>>, ApiError> {
    let unfit =
        |value: &Value| wrong_type("prompt", "one of a string, an array of strings or an array of tokens", value);
    let tokens = |list: &[Value]| {
        let all = !list.is_empty() && list.iter().all(Value::is_u64);
        all.then(|| Cow::Owned(list.iter().map(|token| format!("<{token}>")).collect::<String>()))
    };
    match prompt {
        None => Ok(vec![Cow::Borrowed("<|endoftext|>")]),
        Some(Value::String(prompt)) => Ok(vec![Cow::Borrowed(prompt)]),
        Some(value @ Value::Array(list)) => {
            if list.is_empty() {
                return Err(ApiError::invalid("'$.prompt' is too short. Expected at least one prompt.").param("prompt"));
            }
            if let Some(one) = tokens(list) {
                return Ok(vec![one]);
            }
            list.iter()
                .map(|prompt| match prompt {
                    Value::String(prompt) => Ok(Cow::Borrowed(prompt.as_str())),
                    Value::Array(list) => tokens(list).ok_or_else(|| unfit(value)),
                    _ => Err(unfit(value)),
                })
                .collect()
        }
        Some(other) => Err(unfit(other)),
    }
}

fn say(asked: &Asked<'_>, directives: &Directives) -> (Vec<Choice>, String) {
    let mut choices = Vec::new();
    let mut prompt_tokens = 0_u64;
    for prompt in &asked.prompts {
        let (clean, _) = directives::extract(prompt);
        let mut conversation = Conversation { turns: 1, ..Conversation::default() };
        conversation.hash_text(&clean);
        conversation.count_message("user", clean.len());
        prompt_tokens = prompt_tokens.saturating_add(conversation.prompt_tokens);
        conversation.question = clean.into_owned();
        for variant in 0..asked.choices {
            let answer = answer::compose(&conversation, directives, Want::Prose, &asked.limits, variant);
            let echo = if asked.echo { conversation.question.clone() } else { String::new() };
            choices.push(Choice { answer, echo });
        }
    }
    let prompt = directives.usage_in.unwrap_or(prompt_tokens);
    let spoken = choices.iter().map(|choice| choice.answer.tokens()).sum();
    let completion = directives.usage_out.unwrap_or(spoken);
    let total = prompt.saturating_add(completion);
    let usage = format!(r#"{{"prompt_tokens":{prompt},"completion_tokens":{completion},"total_tokens":{total}}}"#);
    (choices, usage)
}

fn finish<'a>(choice: &Choice, directives: &'a Directives) -> &'a str {
    directives.finish.as_deref().unwrap_or(match choice.answer.ending {
        Ending::Length => "length",
        Ending::Stop | Ending::StopSequence(_) => "stop",
    })
}

fn choice_json(index: usize, text: &str, finish: &str) -> String {
    format!(r#"{{"text":{text},"index":{index},"logprobs":null,"finish_reason":{finish}}}"#)
}

fn stream(asked: &Asked<'_>, choices: &[Choice], usage: &str, head: &str, directives: &Directives) -> EventStream {
    let separate = asked.include_usage && !directives.usage_inline && !directives.no_usage;
    let tail = if separate { r#"],"usage":null}"# } else { "]}" };
    let error = crate::openai::error_body(&mid_stream_error(directives));
    let mut events = EventStream::new(Framing::Sse, Event::fixed(Kind::Done, None, error));
    let mut templates = Vec::new();
    for (index, choice) in choices.iter().enumerate() {
        if !choice.echo.is_empty() {
            let echo = choice_json(index, &json_string(&choice.echo), "null");
            events.push(Kind::Opening, None, format!("{head}{echo}{tail}"));
        }
        templates.push(events.template(Template {
            name: None,
            head: format!(r#"{head}{{"text":"#),
            source: choice.answer.text.clone(),
            tail: format!(r#","index":{index},"logprobs":null,"finish_reason":null}}{tail}"#),
        }));
    }
    let longest = choices.iter().map(|choice| choice.answer.pieces.len()).max().unwrap_or(0);
    for at in 0..longest {
        for (choice, template) in choices.iter().zip(&templates) {
            if let Some(piece) = choice.answer.pieces.get(at) {
                events.push_delta(*template, *piece);
            }
        }
    }
    let last = choices.len().saturating_sub(1);
    for (index, choice) in choices.iter().enumerate() {
        let ending = choice_json(index, r#""""#, &json_string(finish(choice, directives)));
        let inline = directives.usage_inline && !directives.no_usage && index == last;
        let data =
            if inline { format!(r#"{head}{ending}],"usage":{usage}}}"#) } else { format!("{head}{ending}{tail}") };
        events.push(Kind::Finish, None, data);
    }
    if separate {
        events.push(Kind::Usage, None, format!(r#"{head}],"usage":{usage}}}"#));
    }
    events.push(Kind::Done, None, "[DONE]".to_owned());
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refusal(body: Value) -> ApiError {
        check(&body).err().unwrap()
    }

    #[test]
    fn prompts_come_in_four_forms() {
        for (prompt, count) in [
            (json!("a"), 1),
            (json!(["a", "b"]), 2),
            (json!([1, 2, 3]), 1),
            (json!([[1, 2], [3]]), 2),
            (Value::Null, 1),
        ] {
            assert_eq!(check(&json!({"model": "m", "prompt": prompt})).ok().unwrap().prompts.len(), count, "{prompt}");
        }
        for prompt in [json!(3), json!([]), json!([1, "a"]), json!([[]]), json!([{}])] {
            assert_eq!(refusal(json!({"model": "m", "prompt": prompt})).param.as_deref(), Some("prompt"), "{prompt}");
        }
    }

    #[test]
    fn a_chat_model_is_not_served_here() {
        for model in ["gpt-4o", "gpt-3.5-turbo", "o3-mini"] {
            let error = refusal(json!({"model": model, "prompt": "a"}));
            assert_eq!(error.status, 404);
            assert!(error.message.starts_with("This is a chat model"));
        }
        assert!(check(&json!({"model": "gpt-3.5-turbo-instruct", "prompt": "a"})).is_ok());
    }

    #[test]
    fn bounds_are_those_of_the_api() {
        for (name, value) in [
            ("n", json!(0)),
            ("best_of", json!(21)),
            ("logprobs", json!(6)),
            ("temperature", json!(2.5)),
            ("max_tokens", json!(-1)),
            ("suffix", json!(1)),
            ("echo", json!("yes")),
            ("stream_options", json!({"include_usage": true})),
        ] {
            let mut body = json!({"model": "m", "prompt": "a"});
            body[name] = value;
            assert_eq!(refusal(body).param.as_deref(), Some(name));
        }
        assert!(
            refusal(json!({"model": "m", "prompt": "a", "n": 3, "best_of": 2})).message.contains("'best_of' >= 'n'")
        );
        assert!(refusal(json!({"prompt": "a"})).message.contains("model"));
    }

    #[test]
    fn sixteen_tokens_are_all_that_comes_unasked() {
        let body = json!({"model": "m", "prompt": "Tell me a story that is rather long"});
        let (choices, _) = say(&check(&body).ok().unwrap(), &Directives::default());
        assert_eq!(
            (choices[0].answer.tokens(), finish(&choices[0], &Directives::default()).to_owned()),
            (16, "length".to_owned())
        );
    }
}
