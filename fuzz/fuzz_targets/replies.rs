//! Replies of every dialect, streamed and whole: cuts make no difference. Before the reply stands its dialect's name, as
//! in a configuration, and a line feed.

#![no_main]

use libfuzzer_sys::fuzz_target;
use llm_gateway::config::{Model, Provider, StructuredOutput};
use llm_gateway::protocol::chat::{ChatEvent, ReplyFault};
use llm_gateway::providers::outbound::{decode_body, decoder};
use llm_gateway::providers::{Target, outbound};
use serde_json::json;

fn decode<'a>(
    target: Target<'_>,
    answer_tool: bool,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (Vec<ChatEvent>, Result<(), ReplyFault>) {
    let mut events = Vec::new();
    let mut decoder = decoder(outbound(target.provider.dialect), target, answer_tool);
    for piece in pieces {
        if let Err(fault) = decoder.push(piece, &mut events) {
            return (events, Err(fault));
        }
    }
    let end = decoder.finish(&mut events);
    (events, end)
}

fuzz_target!(|input: &[u8]| {
    let Some(at) = input.iter().position(|byte| *byte == b'\n') else { return };
    let (name, reply) = (&input[..at], &input[at + 1..]);
    let provider = json!({"dialect": String::from_utf8_lossy(name), "base_url": "https://provider.example/v1"});
    let Ok(provider) = serde_json::from_value::<Provider>(provider) else { return };
    let target = Target {
        provider: &provider,
        upstream_model: "upstream",
        max_output_tokens: Model::MAX_OUTPUT_TOKENS,
        structured_output: StructuredOutput::default(),
    };
    let Some((bytes, pieces)) = llm_gateway_fuzz::cut(reply) else { return };
    for answer_tool in [false, true] {
        let whole = decode(target, answer_tool, std::iter::once(bytes));
        assert_eq!(decode(target, answer_tool, pieces.clone()), whole);
        let _ = decode_body(outbound(provider.dialect), target, answer_tool, bytes);
    }
});
