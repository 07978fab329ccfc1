//! What the model says, whole and streamed.

use super::cache::input_usage;
use super::{ARGUMENT_BYTES, Block, MessagesRequest, SIGNATURE_PREFIX, Said, Usage, error_body};
use crate::answer::{self, Conversation, Ending, Span, ToolQuestion};
use crate::directives::Directives;
use crate::reply::{ApiError, json_string};
use crate::schema;
use crate::server::App;
use crate::wire::{Event, EventStream, Framing, Kind, Template};

pub fn say<'a>(
    app: &App,
    request: &MessagesRequest<'a>,
    conversation: &Conversation,
    directives: &Directives,
) -> Said<'a> {
    let mut blocks = Vec::new();
    let asked = request.thinking && directives.reasoning != Some(0);
    if asked || directives.reasoning.map_or(directives.signature, |words| words > 0) {
        blocks.push(Block::Thinking {
            answer: answer::thinking(conversation, directives.reasoning),
            omitted: request.thinking_omitted,
        });
    }
    let thinking = blocks.iter().map(Block::tokens).sum();
    let question = ToolQuestion {
        tools: request.tools.len(),
        forbidden: request.forbidden,
        forced: request.forced,
        parallel: request.parallel,
        conversation,
    };
    let calls = answer::tool_calls(question, directives);
    let (mut stop_reason, mut stop_sequence) = ("end_turn", None);
    if directives.block {
        stop_reason = "refusal";
        blocks.clear();
    } else if calls == 0 {
        let answer = answer::compose(conversation, directives, request.want, &request.limits, 0);
        match &answer.ending {
            Ending::Stop => {}
            Ending::Length => stop_reason = "max_tokens",
            Ending::StopSequence(sequence) => {
                stop_reason = "stop_sequence";
                stop_sequence = Some(sequence.clone());
            }
        }
        blocks.push(Block::Text(answer));
    } else {
        stop_reason = "tool_use";
        // A model that chose to call a tool says so; one that was forced to does not.
        if let Some((name, _)) = request.tools.first()
            && (!request.forced || directives.text.is_some())
        {
            blocks.push(Block::Text(answer::before_tools(directives, name)));
        }
        for (number, (name, schema)) in request.tools.iter().cycle().take(calls).enumerate() {
            let variant = number / request.tools.len().max(1);
            let input = schema::example(schema, &conversation.question, variant).to_string();
            let pieces = answer::sized_spans(&input, ARGUMENT_BYTES);
            blocks.push(Block::ToolUse { id: app.id("toolu_01", 22), name, input, pieces });
        }
    }
    let mut usage = input_usage(app, request, conversation.prompt_tokens);
    usage.thinking = thinking;
    usage.output = blocks.iter().map(Block::tokens).fold(0, u64::saturating_add);
    usage.input = directives.usage_in.unwrap_or(usage.input);
    usage.output = directives.usage_out.unwrap_or(usage.output);
    usage.read = directives.cached.unwrap_or(usage.read);
    usage.write_5m = directives.cache_write.unwrap_or(usage.write_5m);
    usage.write_1h = directives.cache_write_1h.unwrap_or(usage.write_1h);
    Said {
        blocks,
        stop_reason: directives.finish.clone().unwrap_or_else(|| stop_reason.to_owned()),
        stop_sequence,
        citations: (0..directives.citations.unwrap_or(0)).map(citation).collect(),
        usage,
    }
}

fn citation(number: usize) -> String {
    format!(
        r#"{{"type":"web_search_result_location","url":"https://example.com/{number}","title":"Source {number}","encrypted_index":"mock","cited_text":"mock"}}"#
    )
}

/// Whether a signature may be the one of this thinking. Those of others are taken; omitted thinking comes back empty,
/// under the signature of what was omitted.
pub fn is_proof_of(given: &str, thinking: &str) -> bool {
    !given.starts_with(SIGNATURE_PREFIX) || thinking.is_empty() || given == proof(thinking)
}

/// The signature of a thinking block: letters that depend on every letter of it.
pub fn proof(thinking: &str) -> String {
    let mut signature = SIGNATURE_PREFIX.to_owned();
    let mut hash = answer::fnv(7, thinking.as_bytes());
    for _ in 0..4 {
        hash = answer::fnv(hash, SIGNATURE_PREFIX.as_bytes());
        signature.push_str(&format!("{hash:016x}"));
    }
    signature.push_str("==");
    signature
}

fn usage_json(usage: &Usage, output: u64, full: bool) -> String {
    let writes = usage.write_5m.saturating_add(usage.write_1h);
    let common = format!(
        r#""input_tokens":{},"cache_creation_input_tokens":{writes},"cache_read_input_tokens":{},"#,
        usage.input, usage.read
    );
    let thinking = match usage.thinking {
        0 => String::new(),
        tokens if output > 1 => {
            format!(r#","output_tokens_details":{{"thinking_tokens":{tokens}}}"#)
        }
        _ => String::new(),
    };
    if full {
        format!(
            r#"{{{common}"cache_creation":{{"ephemeral_5m_input_tokens":{},"ephemeral_1h_input_tokens":{}}},"output_tokens":{output}{thinking},"service_tier":"standard"}}"#,
            usage.write_5m, usage.write_1h
        )
    } else {
        format!(r#"{{{common}"output_tokens":{output}{thinking}}}"#)
    }
}

fn stop_json(said: &Said<'_>) -> String {
    let details = match said.stop_reason.as_str() {
        "refusal" => r#","stop_details":{"type":"refusal","category":"cyber","explanation":null}"#,
        _ => "",
    };
    format!(
        r#""stop_reason":{},"stop_sequence":{}{details}"#,
        json_string(&said.stop_reason),
        said.stop_sequence.as_deref().map_or_else(|| "null".to_owned(), json_string)
    )
}

pub fn whole(request: &MessagesRequest<'_>, said: &Said<'_>, id: &str, directives: &Directives) -> String {
    let blocks: Vec<String> = said
        .blocks
        .iter()
        .map(|block| match block {
            Block::Thinking { answer, omitted } => format!(
                r#"{{"type":"thinking","thinking":{},"signature":"{}"}}"#,
                json_string(if *omitted { "" } else { &answer.text }),
                proof(&answer.text)
            ),
            Block::Text(answer) if !said.citations.is_empty() => format!(
                r#"{{"type":"text","text":{},"citations":[{}]}}"#,
                json_string(&answer.text),
                said.citations.join(",")
            ),
            Block::Text(answer) => {
                format!(r#"{{"type":"text","text":{}}}"#, json_string(&answer.text))
            }
            Block::ToolUse { id, name, input, .. } => {
                format!(r#"{{"type":"tool_use","id":"{id}","name":{},"input":{input}}}"#, json_string(name))
            }
        })
        .collect();
    let usage = if directives.no_usage {
        String::new()
    } else {
        format!(r#","usage":{}"#, usage_json(&said.usage, said.usage.output, true))
    };
    format!(
        r#"{{"model":{},"id":"{id}","type":"message","role":"assistant","content":[{}],{}{usage}}}"#,
        json_string(request.model),
        blocks.join(","),
        stop_json(said)
    )
}

pub fn stream(request: &MessagesRequest<'_>, said: &Said<'_>, id: &str, directives: &Directives) -> EventStream {
    let failure = ApiError {
        status: 529,
        message: directives.error_message.clone().unwrap_or_else(|| "Overloaded".to_owned()),
        kind: directives.error_type.clone(),
        code: directives.error_code.clone(),
        param: None,
    };
    let failure = Event::fixed(Kind::Done, Some("error"), error_body(&failure, &id.replace("msg_", "req_")));
    let mut events = EventStream::new(Framing::Sse, failure);
    let usage = if directives.no_usage {
        String::new()
    } else {
        // The first event counts the input; one output token has been made by then.
        let first = said.usage.output.min(1);
        format!(r#","usage":{}"#, usage_json(&said.usage, first, true))
    };
    events.push(
        Kind::Opening,
        Some("message_start"),
        format!(
            r#"{{"type":"message_start","message":{{"model":{},"id":"{id}","type":"message","role":"assistant","content":[],"stop_reason":null,"stop_sequence":null{usage}}}}}"#,
            json_string(request.model)
        ),
    );
    for (index, block) in said.blocks.iter().enumerate() {
        push_block(&mut events, index, block, &said.citations);
    }
    let usage = if directives.no_usage {
        String::new()
    } else {
        format!(r#","usage":{}"#, usage_json(&said.usage, said.usage.output, false))
    };
    events.push(
        Kind::Finish,
        Some("message_delta"),
        format!(r#"{{"type":"message_delta","delta":{{{}}}{usage}}}"#, stop_json(said)),
    );
    events.push(Kind::Done, Some("message_stop"), r#"{"type":"message_stop"}"#.to_owned());
    events
}

fn push_block(events: &mut EventStream, index: usize, block: &Block<'_>, citations: &[String]) {
    const DELTA: Option<&str> = Some("content_block_delta");
    let start = match block {
        Block::Thinking { .. } => r#"{"type":"thinking","thinking":"","signature":""}"#.to_owned(),
        Block::Text(_) => r#"{"type":"text","text":""}"#.to_owned(),
        Block::ToolUse { id, name, .. } => {
            format!(r#"{{"type":"tool_use","id":"{id}","name":{},"input":{{}}}}"#, json_string(name))
        }
    };
    events.push(
        Kind::Opening,
        Some("content_block_start"),
        format!(r#"{{"type":"content_block_start","index":{index},"content_block":{start}}}"#),
    );
    if index == 0 {
        events.push(Kind::Opening, Some("ping"), r#"{"type": "ping"}"#.to_owned());
    }
    let delta = |kind: &str, field: &str| {
        format!(r#"{{"type":"content_block_delta","index":{index},"delta":{{"type":"{kind}","{field}":"#)
    };
    let push_all = |events: &mut EventStream, head: String, source: &str, pieces: &[Span]| {
        let template =
            events.template(Template { name: DELTA, head, source: source.to_owned(), tail: "}}".to_owned() });
        for piece in pieces {
            events.push_delta(template, *piece);
        }
    };
    match block {
        Block::Text(answer) => {
            push_all(events, delta("text_delta", "text"), &answer.text, &answer.pieces);
            for citation in citations {
                events.push(Kind::Opening, DELTA, format!("{}{citation}}}}}", delta("citations_delta", "citation")));
            }
        }
        Block::ToolUse { input, pieces, .. } => {
            // The real API opens arguments with an empty delta.
            let head = delta("input_json_delta", "partial_json");
            events.push(Kind::Opening, DELTA, format!(r#"{head}""}}}}"#));
            push_all(events, head, input, pieces);
        }
        Block::Thinking { answer, omitted } => {
            let pieces: &[Span] = if *omitted { &[] } else { &answer.pieces };
            push_all(events, delta("thinking_delta", "thinking"), &answer.text, pieces);
            let head = delta("signature_delta", "signature");
            events.push(Kind::Opening, DELTA, format!(r#"{head}"{}"}}}}"#, proof(&answer.text)));
        }
    }
    events.push(
        Kind::Opening,
        Some("content_block_stop"),
        format!(r#"{{"type":"content_block_stop","index":{index}}}"#),
    );
}
