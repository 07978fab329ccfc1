//! What a model says through Converse, whole and streamed.

use serde_json::Value;

use crate::amazon::CONTENT_TYPE;
use crate::answer::{self, Answer, Conversation, Ending, Limits, Span, ToolQuestion, Want};
use crate::anthropic;
use crate::directives::{self, Directives};
use crate::reply::{Reply, json_string};
use crate::schema;
use crate::server::App;
use crate::wire::{Event, EventStream, Framing, Kind, Template};

/// Bytes of tool arguments in one delta.
const ARGUMENT_BYTES: usize = 8;
/// The padding that hides how long a piece is.
const PADDING: &str = r#","p":"abcdefgh""#;

/// One block of an answer.
enum Block {
    Reasoning(Answer),
    Text(Answer),
    Call { id: String, name: String, input: String, pieces: Vec<Span> },
}

impl Block {
    fn tokens(&self) -> u64 {
        match self {
            Self::Reasoning(answer) | Self::Text(answer) => answer.tokens(),
            Self::Call { pieces, .. } => u64::try_from(pieces.len()).unwrap_or(u64::MAX),
        }
    }
}

struct Said {
    blocks: Vec<Block>,
    stop: String,
    /// `"usage":{…}`, or nothing.
    usage: String,
    citations: Vec<String>,
}

/// What a request says that matters to the answer.
pub fn converse(body: &Value) -> Conversation {
    let mut conversation = Conversation::default();
    let list = |value: &Value, name: &str| value.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let texts = |blocks: &[Value]| {
        let texts: Vec<&str> = blocks.iter().filter_map(|block| block.get("text")?.as_str()).collect();
        texts.join("\n")
    };
    let system = texts(&list(body, "system"));
    if !system.is_empty() {
        conversation.has_system = true;
        conversation.hash_text(&system);
        conversation.count_message("system", system.len());
    }
    for message in list(body, "messages") {
        let role = message.get("role").and_then(Value::as_str).unwrap_or_default().to_owned();
        let content = list(&message, "content");
        let text = texts(&content);
        let (clean, _) = directives::extract(&text);
        conversation.hash_text(&clean);
        let mut bytes = clean.len();
        conversation.tool_results.clear();
        for block in &content {
            conversation.images += usize::from(block.get("image").is_some());
            conversation.documents += usize::from(block.get("document").is_some());
            if let Some(call) = block.get("toolUse") {
                let call = call.to_string();
                conversation.hash_text(&call);
                bytes += call.len();
            }
            if let Some(result) = block.get("toolResult") {
                let parts = list(result, "content");
                let json: Vec<String> = parts.iter().filter_map(|part| Some(part.get("json")?.to_string())).collect();
                let told = [texts(&parts), json.join("\n")].concat();
                conversation.hash_text(&told);
                bytes += told.len();
                conversation.tool_results.push(told);
            }
        }
        conversation.count_message(&role, bytes);
        if role == "user" && conversation.tool_results.is_empty() {
            conversation.turns += 1;
        }
        if role == "user" && !text.is_empty() {
            conversation.question = clean.into_owned();
        }
    }
    conversation.count_extras(tools(body).len());
    conversation
}

/// The tools that may be called: name and schema.
fn tools(body: &Value) -> Vec<(&str, &Value)> {
    let offered = body.pointer("/toolConfig/tools").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let specs = offered.iter().filter_map(|tool| tool.get("toolSpec"));
    specs.filter_map(|spec| Some((spec.get("name")?.as_str()?, spec.pointer("/inputSchema/json")?))).collect()
}

/// Answers a request that passed the checks.
pub fn answer(app: &App, body: &Value, streamed: bool, directives: &Directives) -> Reply {
    let conversation = converse(body);
    let said = say(app, body, &conversation, directives);
    if streamed { Reply::stream(CONTENT_TYPE, stream(&said, directives)) } else { Reply::json(200, whole(&said)) }
}

fn say(app: &App, body: &Value, conversation: &Conversation, directives: &Directives) -> Said {
    let mut blocks = Vec::new();
    let additional = body.get("additionalModelRequestFields").unwrap_or(&Value::Null);
    let mode = additional.pointer("/thinking/type").or_else(|| additional.pointer("/reasoningConfig/type"));
    let asked = matches!(mode.and_then(Value::as_str), Some("enabled" | "adaptive"))
        || ["reasoning_effort", "reasoning_config"].iter().any(|name| additional.get(name).is_some());
    if directives.reasoning.map_or(asked || directives.signature, |words| words > 0) {
        blocks.push(Block::Reasoning(answer::thinking(conversation, directives.reasoning)));
    }
    let offered = tools(body);
    let choice = body.pointer("/toolConfig/toolChoice");
    let named = choice.and_then(|choice| choice.pointer("/tool/name")).and_then(Value::as_str);
    let usable: Vec<(&str, &Value)> =
        offered.into_iter().filter(|(name, _)| named.is_none_or(|named| named == *name)).collect();
    let forced = choice.is_some_and(|choice| choice.get("auto").is_none());
    let question = ToolQuestion { tools: usable.len(), forbidden: false, forced, parallel: true, conversation };
    let (mut stop, mut calls) = ("end_turn", answer::tool_calls(question, directives));
    if directives.malformed_call || directives.block {
        calls = 0;
    }
    if directives.block {
        stop = "guardrail_intervened";
        let text = "Sorry, the model cannot answer this question.".to_owned();
        let pieces = answer::word_spans(&text);
        blocks.push(Block::Text(Answer { text, pieces, ending: Ending::Stop }));
    } else if directives.malformed_call {
        stop = "malformed_tool_use";
    } else if calls > 0 {
        stop = "tool_use";
        if let Some((name, _)) = usable.first().filter(|_| !forced || directives.text.is_some()) {
            blocks.push(Block::Text(answer::before_tools(directives, name)));
        }
        for (number, (name, schema)) in usable.iter().cycle().take(calls).enumerate() {
            let input = schema::example(schema, &conversation.question, number / usable.len().max(1)).to_string();
            let pieces = answer::sized_spans(&input, ARGUMENT_BYTES);
            blocks.push(Block::Call { id: app.id("tooluse_", 22), name: (*name).to_owned(), input, pieces });
        }
    } else {
        let schema = body
            .pointer("/outputConfig/textFormat/structure/jsonSchema/schema")
            .and_then(Value::as_str)
            .and_then(|schema| serde_json::from_str::<Value>(schema).ok());
        let inference = body.get("inferenceConfig").unwrap_or(&Value::Null);
        let stops = inference.get("stopSequences").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let limits = Limits {
            max_tokens: inference.get("maxTokens").and_then(Value::as_u64),
            stop: stops.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        };
        let want = schema.as_ref().map_or(Want::Prose, Want::Json);
        let text = answer::compose(conversation, directives, want, &limits, 0);
        stop = match text.ending {
            Ending::Stop => stop,
            Ending::Length => "max_tokens",
            Ending::StopSequence(_) => "stop_sequence",
        };
        blocks.push(Block::Text(text));
    }
    let output = directives.usage_out.unwrap_or_else(|| blocks.iter().map(Block::tokens).sum());
    let citations = (0..directives.citations.unwrap_or(0))
        .map(|n| {
            format!(
                r#"{{"title":"Source {n}","sourceContent":[{{"text":"mock"}}],"location":{{"web":{{"url":"https://example.com/{n}","domain":"example.com"}}}}}}"#
            )
        })
        .collect();
    Said {
        usage: usage(conversation.prompt_tokens, output, directives),
        stop: directives.finish.clone().unwrap_or_else(|| stop.to_owned()),
        blocks,
        citations,
    }
}

/// Token counts. The input numbers do not overlap.
fn usage(prompt: u64, output: u64, directives: &Directives) -> String {
    if directives.no_usage {
        return String::new();
    }
    let input = directives.usage_in.unwrap_or(prompt);
    let (read, short, long) =
        (directives.cached.unwrap_or(0), directives.cache_write.unwrap_or(0), directives.cache_write_1h.unwrap_or(0));
    let written = short.saturating_add(long);
    let total = [input, output, read, written].into_iter().fold(0, u64::saturating_add);
    let details: Vec<String> = [(short, "5m"), (long, "1h")]
        .into_iter()
        .filter(|(tokens, _)| *tokens > 0)
        .map(|(tokens, ttl)| format!(r#"{{"inputTokens":{tokens},"ttl":"{ttl}"}}"#))
        .collect();
    let details =
        if details.is_empty() { String::new() } else { format!(r#""cacheDetails":[{}],"#, details.join(",")) };
    let cache = if read + written == 0 {
        String::new()
    } else {
        format!(
            r#"{details}"cacheReadInputTokenCount":{read},"cacheReadInputTokens":{read},"cacheWriteInputTokenCount":{written},"cacheWriteInputTokens":{written},"#
        )
    };
    format!(r#""usage":{{{cache}"inputTokens":{input},"outputTokens":{output},"totalTokens":{total}}}"#)
}

fn whole(said: &Said) -> String {
    let mut blocks: Vec<String> = said
        .blocks
        .iter()
        .map(|block| match block {
            Block::Reasoning(answer) => format!(
                r#"{{"reasoningContent":{{"reasoningText":{{"text":{},"signature":"{}"}}}}}}"#,
                json_string(&answer.text),
                anthropic::proof(&answer.text)
            ),
            Block::Text(answer) if !said.citations.is_empty() => format!(
                r#"{{"citationsContent":{{"content":[{{"text":{}}}],"citations":[{}]}}}}"#,
                json_string(&answer.text),
                said.citations.join(",")
            ),
            Block::Text(answer) => format!(r#"{{"text":{}}}"#, json_string(&answer.text)),
            Block::Call { id, name, input, .. } => {
                format!(r#"{{"toolUse":{{"toolUseId":"{id}","name":{},"input":{input}}}}}"#, json_string(name))
            }
        })
        .collect();
    if blocks.is_empty() {
        blocks.push(r#"{"text":""}"#.to_owned());
    }
    let usage = if said.usage.is_empty() { String::new() } else { format!(",{}", said.usage) };
    format!(
        r#"{{"metrics":{{"latencyMs":12}},"output":{{"message":{{"content":[{}],"role":"assistant"}}}},"stopReason":{}{usage}}}"#,
        blocks.join(","),
        json_string(&said.stop)
    )
}

const DELTA: Option<&str> = Some("contentBlockDelta");

fn stream(said: &Said, directives: &Directives) -> EventStream {
    let mut events = EventStream::new(Framing::Amazon, super::failure(false, directives));
    events.exception = Some(super::failure(true, directives));
    let metadata = format!(r#"{{"metrics":{{"latencyMs":12}},{}{PADDING}}}"#, said.usage);
    if !directives.no_start {
        events.push(Kind::Opening, Some("messageStart"), format!(r#"{{"role":"assistant"{PADDING}}}"#));
    }
    let calls = said.blocks.iter().filter(|block| matches!(block, Block::Call { .. })).count();
    let woven = directives.interleave && calls > 1;
    for (index, block) in said.blocks.iter().enumerate() {
        if woven && matches!(block, Block::Call { .. }) {
            continue;
        }
        open(&mut events, index, block);
        let template = template(&mut events, index, block);
        for piece in pieces(block) {
            events.push_delta(template, *piece);
        }
        finish_block(&mut events, index, block, said);
    }
    if woven {
        weave(&mut events, said);
    }
    if directives.two_usage && !said.usage.is_empty() {
        events.push(Kind::Opening, Some("metadata"), metadata.clone());
    }
    let stop = format!(r#"{{"stopReason":{}{PADDING}}}"#, json_string(&said.stop));
    events.push(Kind::Finish, Some("messageStop"), stop);
    if !said.usage.is_empty() {
        events.push(Kind::Usage, Some("metadata"), metadata);
    }
    events
}

fn pieces(block: &Block) -> &[Span] {
    match block {
        Block::Reasoning(answer) | Block::Text(answer) => &answer.pieces,
        Block::Call { pieces, .. } => pieces,
    }
}

/// Only calls are announced; everything else begins with its first piece.
fn open(events: &mut EventStream, index: usize, block: &Block) {
    if let Block::Call { id, name, .. } = block {
        let start = format!(r#""start":{{"toolUse":{{"name":{},"toolUseId":"{id}"}}}}"#, json_string(name));
        let data = format!(r#"{{"contentBlockIndex":{index},{start}{PADDING}}}"#);
        events.push(Kind::Opening, Some("contentBlockStart"), data);
    }
}

fn template(events: &mut EventStream, index: usize, block: &Block) -> usize {
    let (before, source, after) = match block {
        Block::Text(answer) => (r#"{"text":"#, &answer.text, "}"),
        Block::Reasoning(answer) => (r#"{"reasoningContent":{"text":"#, &answer.text, "}}"),
        Block::Call { input, .. } => (r#"{"toolUse":{"input":"#, input, "}}"),
    };
    events.template(Template {
        name: DELTA,
        head: format!(r#"{{"contentBlockIndex":{index},"delta":{before}"#),
        source: source.clone(),
        tail: format!("{after}{PADDING}}}"),
    })
}

fn finish_block(events: &mut EventStream, index: usize, block: &Block, said: &Said) {
    let mut delta = |delta: String| {
        events.push(Kind::Opening, DELTA, format!(r#"{{"contentBlockIndex":{index},"delta":{delta}{PADDING}}}"#));
    };
    match block {
        Block::Reasoning(answer) => {
            delta(format!(r#"{{"reasoningContent":{{"signature":"{}"}}}}"#, anthropic::proof(&answer.text)));
        }
        Block::Text(_) => said.citations.iter().for_each(|citation| delta(format!(r#"{{"citation":{citation}}}"#))),
        Block::Call { .. } => {}
    }
    events.push(Kind::Opening, Some("contentBlockStop"), format!(r#"{{"contentBlockIndex":{index}{PADDING}}}"#));
}

/// Calls whose pieces alternate.
fn weave(events: &mut EventStream, said: &Said) {
    let calls: Vec<(usize, &Block)> =
        said.blocks.iter().enumerate().filter(|(_, block)| matches!(block, Block::Call { .. })).collect();
    let mut templates = Vec::new();
    for (index, block) in &calls {
        open(events, *index, block);
        templates.push(template(events, *index, block));
    }
    let longest = calls.iter().map(|(_, block)| pieces(block).len()).max().unwrap_or(0);
    for at in 0..longest {
        for ((_, block), template) in calls.iter().zip(&templates) {
            if let Some(piece) = pieces(block).get(at) {
                events.push_delta(*template, *piece);
            }
        }
    }
    for (index, block) in &calls {
        finish_block(events, *index, block, said);
    }
}

/// An error in the middle of a stream: one that the API knows, or another.
pub fn failure(modelled: bool, directives: &Directives) -> Event {
    let default = if modelled { "modelStreamErrorException" } else { "InternalServerException" };
    let code = directives.error_type.clone().unwrap_or_else(|| default.to_owned());
    let message = directives
        .error_message
        .as_deref()
        .unwrap_or("The system encountered an unexpected error during processing. Try your request again.");
    let data = if modelled { format!(r#"{{"message":{}}}"#, json_string(message)) } else { message.to_owned() };
    Event::Failure { modelled, code, data }
}
