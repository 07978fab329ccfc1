//! What the targets share.

use std::sync::LazyLock;

use llm_gateway::config::{Model, Provider, StructuredOutput};
use llm_gateway::protocol::chat::{ChatEvent, ReplyFault};
use llm_gateway::protocol::inbound::Inbound;
use llm_gateway::providers::outbound::{Outbound, decode_body, decoder};
use llm_gateway::providers::{StandIns, Target, outbound};
use serde_json::{Value, json};

/// The bytes of an input behind its first, and the same cut into pieces whose length that first byte says.
pub fn cut(input: &[u8]) -> Option<(&[u8], std::slice::Chunks<'_, u8>)> {
    let (length, bytes) = input.split_first()?;
    Some((bytes, bytes.chunks(usize::from(*length).max(1))))
}

/// A provider, with an address.
pub fn provider(mut settings: Value) -> Provider {
    settings["base_url"] = json!("https://provider.example/v1");
    serde_json::from_value(settings).expect("a provider")
}

fn target(provider: &Provider) -> Target<'_> {
    Target {
        provider,
        upstream_model: "upstream",
        max_output_tokens: Model::MAX_OUTPUT_TOKENS,
        structured_output: StructuredOutput::default(),
        strict_params: false,
    }
}

fn decode<'a>(
    dialect: &dyn Outbound,
    target: Target<'_>,
    stand_ins: &StandIns,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (Vec<ChatEvent>, Result<(), ReplyFault>) {
    let mut events = Vec::new();
    let mut decoder = decoder(dialect, target, stand_ins);
    for piece in pieces {
        if let Err(fault) = decoder.push(piece, &mut events) {
            return (events, Err(fault));
        }
    }
    let end = decoder.finish(&mut events);
    (events, end)
}

/// A provider's reply, streamed and whole: cuts make no difference.
pub fn reply(provider: &LazyLock<Provider>, input: &[u8]) {
    let Some((bytes, pieces)) = cut(input) else { return };
    let (dialect, target) = (outbound(provider.dialect()), target(provider));
    for answer_tool in [false, true] {
        let custom_tools = if answer_tool { vec!["f".to_owned()] } else { Vec::new() };
        let stand_ins = &StandIns { answer_tool, custom_tools };
        let whole = decode(dialect, target, stand_ins, std::iter::once(bytes));
        assert_eq!(decode(dialect, target, stand_ins, pieces.clone()), whole);
        let _ = decode_body(dialect, target, stand_ins, bytes);
    }
}

/// A caller's request, read and written for providers of every dialect.
pub fn request(inbound: &dyn Inbound, providers: &LazyLock<Vec<Provider>>, input: &[u8]) {
    let Ok(chat) = inbound.read(input) else { return };
    for provider in providers.iter() {
        let _ = llm_gateway::providers::outbound::translated(outbound(provider.dialect()), target(provider), &chat);
    }
}

/// Providers of every dialect.
pub fn providers() -> Vec<Provider> {
    let all = [
        json!({"dialect": "openai"}),
        json!({"dialect": "openai", "wires": ["responses"]}),
        json!({"dialect": "anthropic"}),
        json!({"dialect": "gemini"}),
        json!({"dialect": "bedrock"}),
    ];
    all.into_iter().map(provider).collect()
}
