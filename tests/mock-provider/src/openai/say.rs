//! What is said in a chat completion, whole and in chunks.

use serde_json::Value;

use super::{ChatRequest, error_body};
use crate::answer::{self, Answer, Conversation, Ending, Span, ToolQuestion};
use crate::directives::Directives;
use crate::reply::{ApiError, json_string};
use crate::schema;
use crate::server::App;
use crate::wire::{Event, EventStream, Framing, Kind, Template};

/// Bytes of tool arguments in one delta.
pub const ARGUMENT_BYTES: usize = 8;

/// One tool call of an answer.
pub struct Call<'a> {
    pub id: String,
    pub name: &'a str,
    pub arguments: String,
    pub pieces: Vec<Span>,
}

/// Token counts of one reply.
pub struct Usage {
    pub prompt: u64,
    pub completion: u64,
    pub cached: u64,
    pub cache_write: u64,
    pub reasoning: u64,
}

/// Everything that is said in one reply.
pub struct Said<'a> {
    pub answers: Vec<Answer>,
    pub calls: Vec<Call<'a>>,
    pub reasoning: Option<Answer>,
    pub usage: Usage,
}

pub fn say<'a>(app: &App, request: &ChatRequest<'a>, conversation: &Conversation, directives: &Directives) -> Said<'a> {
    let question = ToolQuestion {
        tools: request.tools.len(),
        forbidden: request.forbidden,
        forced: request.forced,
        parallel: request.parallel,
        conversation,
    };
    let count = answer::tool_calls(question, directives);
    let calls: Vec<Call<'a>> = request
        .tools
        .iter()
        .cycle()
        .take(count)
        .enumerate()
        .map(|(number, (name, parameters))| {
            let variant = number / request.tools.len().max(1);
            let arguments = arguments(parameters, conversation, variant);
            let pieces = answer::sized_spans(&arguments, ARGUMENT_BYTES);
            Call { id: app.id("call_", 24), name, arguments, pieces }
        })
        .collect();
    let answers: Vec<Answer> = (0..request.choices)
        .map(|variant| {
            if calls.is_empty() {
                answer::compose(conversation, directives, request.want, &request.limits, variant)
            } else {
                // Content beside tool calls is null, unless the directives ask for a text.
                let text = directives.text.clone().unwrap_or_default();
                let pieces = answer::word_spans(&text);
                Answer { text, pieces, ending: Ending::Stop }
            }
        })
        .collect();
    let reasoning = directives.reasoning_content.then(|| answer::thinking(conversation, directives.reasoning));
    let reasoning_tokens = directives.reasoning.or(reasoning.as_ref().map(Answer::tokens)).unwrap_or(0);
    let choices = u64::try_from(request.choices).unwrap_or(1);
    let argument_pieces: usize = calls.iter().map(|call| call.pieces.len()).sum();
    let spoken = answers
        .iter()
        .map(Answer::tokens)
        .sum::<u64>()
        .saturating_add(u64::try_from(argument_pieces).unwrap_or_default().saturating_mul(choices))
        .saturating_add(reasoning_tokens);
    Said {
        answers,
        calls,
        reasoning,
        usage: Usage {
            prompt: directives.usage_in.unwrap_or(conversation.prompt_tokens),
            completion: directives.usage_out.unwrap_or(spoken),
            cached: directives.cached.unwrap_or(0),
            cache_write: directives.cache_write.unwrap_or(0),
            reasoning: reasoning_tokens,
        },
    }
}

pub fn arguments(parameters: &Value, conversation: &Conversation, variant: usize) -> String {
    if parameters.is_null() {
        return "{}".to_owned();
    }
    schema::example(parameters, &conversation.question, variant).to_string()
}

fn finish_reason<'a>(said: &Said<'_>, answer: &Answer, directives: &'a Directives) -> &'a str {
    if let Some(finish) = &directives.finish {
        return finish;
    }
    match answer.ending {
        _ if directives.block => "content_filter",
        _ if !said.calls.is_empty() => "tool_calls",
        Ending::Length => "length",
        Ending::Stop | Ending::StopSequence(_) => "stop",
    }
}

fn usage_json(usage: &Usage) -> String {
    let write = match usage.cache_write {
        0 => String::new(),
        tokens => format!(r#""cache_write_tokens":{tokens},"#),
    };
    format!(
        r#"{{"prompt_tokens":{},"completion_tokens":{},"total_tokens":{},"prompt_tokens_details":{{"cached_tokens":{},{write}"audio_tokens":0}},"completion_tokens_details":{{"reasoning_tokens":{},"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}}"#,
        usage.prompt,
        usage.completion,
        usage.prompt.saturating_add(usage.completion),
        usage.cached,
        usage.reasoning,
    )
}

/// What all parts of one reply have in common.
pub struct Head {
    id: String,
    created: u64,
    /// As JSON.
    model: String,
}

impl Head {
    pub fn new(app: &App, request: &ChatRequest<'_>) -> Self {
        Self {
            id: app.id("chatcmpl-", 29),
            created: crate::journal::unix_ms() / 1000,
            model: json_string(request.model),
        }
    }
}

/// The pages that an answer cites, as a list.
fn annotations(answer: &Answer, directives: &Directives) -> String {
    let end = answer.text.chars().count();
    let cited: Vec<String> = (1..=directives.citations.unwrap_or(0))
        .map(|number| {
            format!(
                r#"{{"type":"url_citation","url_citation":{{"start_index":0,"end_index":{end},"title":"Source {number}","url":"https://example.com/{number}"}}}}"#
            )
        })
        .collect();
    format!("[{}]", cited.join(","))
}

/// A whole reply.
pub fn whole(said: &Said<'_>, head: &Head, directives: &Directives) -> String {
    let mut choices = String::new();
    for (index, answer) in said.answers.iter().enumerate() {
        let text = json_string(&answer.text);
        let (content, refusal) = match said.calls.is_empty() || !answer.text.is_empty() {
            true if directives.refusal => ("null", text.as_str()),
            true => (text.as_str(), "null"),
            false => ("null", "null"),
        };
        let reasoning = said
            .reasoning
            .as_ref()
            .map_or_else(String::new, |reasoning| format!(r#","reasoning_content":{}"#, json_string(&reasoning.text)));
        let calls: Vec<String> = said
            .calls
            .iter()
            .map(|call| {
                format!(
                    r#"{{"id":"{}","type":"function","function":{{"name":{},"arguments":{}}}}}"#,
                    call.id,
                    json_string(call.name),
                    json_string(&call.arguments)
                )
            })
            .collect();
        let calls = if calls.is_empty() { String::new() } else { format!(r#","tool_calls":[{}]"#, calls.join(",")) };
        if index > 0 {
            choices.push(',');
        }
        choices.push_str(&format!(
            r#"{{"index":{index},"message":{{"role":"assistant","content":{content}{reasoning}{calls},"refusal":{refusal},"annotations":{}}},"logprobs":null,"finish_reason":{}}}"#,
            annotations(answer, directives),
            json_string(finish_reason(said, answer, directives)),
        ));
    }
    let usage = if directives.no_usage { String::new() } else { format!(r#""usage":{},"#, usage_json(&said.usage)) };
    format!(
        r#"{{"id":"{}","object":"chat.completion","created":{},"model":{},"choices":[{choices}],{usage}"service_tier":"default","system_fingerprint":"fp_mock"}}"#,
        head.id, head.created, head.model
    )
}

/// A reply in chunks.
pub fn stream(request: &ChatRequest<'_>, said: &Said<'_>, head: &Head, directives: &Directives) -> EventStream {
    let separate_usage = request.include_usage && !directives.usage_inline && !directives.no_usage;
    let usage_null = if separate_usage { r#","usage":null"# } else { "" };
    let start = format!(
        r#"{{"id":"{}","object":"chat.completion.chunk","created":{},"model":{},"service_tier":"default","system_fingerprint":"fp_mock","choices":["#,
        head.id, head.created, head.model
    );
    let chunk = |index: usize, delta: &str, finish: &str, usage: &str| {
        format!(r#"{start}{{"index":{index},"delta":{delta},"logprobs":null,"finish_reason":{finish}}}]{usage}}}"#)
    };
    let error = mid_stream_error(directives);
    let mut events = EventStream::new(Framing::Sse, Event::fixed(Kind::Done, None, error_body(&error)));
    let delta = |events: &mut EventStream, index: usize, open: &str, source: &str, close: &str| {
        events.template(Template {
            name: None,
            head: format!(r#"{start}{{"index":{index},"delta":{open}"#),
            source: source.to_owned(),
            tail: format!(r#"{close},"logprobs":null,"finish_reason":null}}]{usage_null}}}"#),
        })
    };
    let has_calls = !said.calls.is_empty();
    for (index, answer) in said.answers.iter().enumerate() {
        // With tool calls, the first call comes with the role unless there is text.
        if !has_calls || !answer.text.is_empty() || said.reasoning.is_some() {
            let role = r#"{"role":"assistant","content":"","refusal":null}"#;
            events.push(Kind::Opening, None, chunk(index, role, "null", usage_null));
        }
        if let Some(reasoning) = &said.reasoning {
            let template = delta(&mut events, index, r#"{"reasoning_content":"#, &reasoning.text, "}");
            for piece in &reasoning.pieces {
                events.push_delta(template, *piece);
            }
        }
    }
    let open = if directives.refusal { r#"{"refusal":"# } else { r#"{"content":"# };
    let templates: Vec<usize> = said
        .answers
        .iter()
        .enumerate()
        .map(|(index, answer)| delta(&mut events, index, open, &answer.text, "}"))
        .collect();
    // The choices of one reply are written at the same time, so their pieces take turns.
    let longest = said.answers.iter().map(|answer| answer.pieces.len()).max().unwrap_or(0);
    for at in 0..longest {
        for (answer, template) in said.answers.iter().zip(&templates) {
            if let Some(piece) = answer.pieces.get(at) {
                events.push_delta(*template, *piece);
            }
        }
    }
    for (index, answer) in said.answers.iter().enumerate() {
        let together = if directives.interleave { said.calls.len().max(1) } else { 1 };
        for (group, calls) in said.calls.chunks(together).enumerate() {
            let mut open_calls = Vec::new();
            for (number, call) in calls.iter().enumerate() {
                let number = group * together + number;
                let role = if number == 0 && answer.text.is_empty() && said.reasoning.is_none() {
                    r#""role":"assistant","content":null,"#
                } else {
                    ""
                };
                let opening = format!(
                    r#"{{{role}"tool_calls":[{{"index":{number},"id":"{}","type":"function","function":{{"name":{},"arguments":""}}}}]}}"#,
                    call.id,
                    json_string(call.name)
                );
                events.push(Kind::Opening, None, chunk(index, &opening, "null", usage_null));
                let open = format!(r#"{{"tool_calls":[{{"index":{number},"function":{{"arguments":"#);
                open_calls.push((delta(&mut events, index, &open, &call.arguments, "}}]}"), &call.pieces));
            }
            let longest = open_calls.iter().map(|(_, pieces)| pieces.len()).max().unwrap_or(0);
            for at in 0..longest {
                for (template, pieces) in &open_calls {
                    if let Some(piece) = pieces.get(at) {
                        events.push_delta(*template, *piece);
                    }
                }
            }
        }
        if directives.citations.is_some_and(|count| count > 0) {
            let cited = format!(r#"{{"annotations":{}}}"#, annotations(answer, directives));
            events.push(Kind::Opening, None, chunk(index, &cited, "null", usage_null));
        }
    }
    let last = said.answers.len().saturating_sub(1);
    for (index, answer) in said.answers.iter().enumerate() {
        let finish = json_string(finish_reason(said, answer, directives));
        let usage = if directives.usage_inline && !directives.no_usage && index == last {
            format!(r#","usage":{}"#, usage_json(&said.usage))
        } else {
            usage_null.to_owned()
        };
        events.push(Kind::Finish, None, chunk(index, "{}", &finish, &usage));
    }
    if separate_usage {
        let usage = usage_json(&said.usage);
        for _ in 0..=usize::from(directives.two_usage) {
            events.push(Kind::Usage, None, format!(r#"{start}],"usage":{usage}}}"#));
        }
    }
    events.push(Kind::Done, None, "[DONE]".to_owned());
    events
}

pub fn mid_stream_error(directives: &Directives) -> ApiError {
    let mut error = ApiError::new(
        500,
        directives
            .error_message
            .as_deref()
            .unwrap_or("The server had an error processing your request. Sorry about that!"),
    );
    error.code.clone_from(&directives.error_code);
    error.kind.clone_from(&directives.error_type);
    error
}
