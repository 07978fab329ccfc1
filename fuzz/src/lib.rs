//! What the targets share.

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

/// A model of a provider's.
pub fn target<'a>(provider: &'a Provider, upstream_model: &'a str) -> Target<'a> {
    Target {
        provider,
        upstream_model,
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

/// A provider's reply, streamed and whole: cuts make no difference, and none succeeds without having ended.
pub fn reply(provider: &Provider, input: &[u8]) {
    let Some((bytes, pieces)) = cut(input) else { return };
    let (dialect, target) = (outbound(provider.dialect()), target(provider, "upstream"));
    let has_ended = |events: &[ChatEvent]| events.iter().any(|event| matches!(event, ChatEvent::Finish { .. }));
    for answer_tool in [false, true] {
        let custom_tools = if answer_tool { vec!["f".to_owned()] } else { Vec::new() };
        let stand_ins = &StandIns { answer_tool, custom_tools };
        let whole = decode(dialect, target, stand_ins, std::iter::once(bytes));
        assert!(whole.1.is_err() || has_ended(&whole.0), "a stream succeeds without an end");
        assert_eq!(decode(dialect, target, stand_ins, pieces.clone()), whole);
        if let Ok(events) = decode_body(dialect, target, stand_ins, bytes) {
            assert!(has_ended(&events), "a reply succeeds without an end");
        }
    }
}

/// Defines the target that fuzzes the replies of a provider with these settings.
#[macro_export]
macro_rules! fuzz_reply {
    ($($settings:tt)+) => {
        static PROVIDER: std::sync::LazyLock<llm_gateway::config::Provider> =
            std::sync::LazyLock::new(|| $crate::provider(serde_json::json!($($settings)+)));

        libfuzzer_sys::fuzz_target!(|input: &[u8]| $crate::reply(&PROVIDER, input));
    };
}

/// A caller's request, read and written for providers of every dialect.
pub fn request(inbound: &dyn Inbound, providers: &[Provider], input: &[u8]) {
    let Ok(chat) = inbound.read(input) else { return };
    for provider in providers {
        let target = target(provider, "upstream");
        let _ = llm_gateway::providers::outbound::translated(outbound(provider.dialect()), target, &chat);
    }
}

/// A provider of the dialect that is mapped by configuration.
pub fn generic() -> Value {
    let finish_reasons = json!({"eos": "stop", "cut": "length"});
    json!({
        "dialect": "generic",
        "generic": {
            "path": "/models/{{model}}/run",
            "body": {"question": "Q: {{prompt}} {{user}}", "turns": "{{messages}}", "most": "{{max_tokens}}", "tools": "{{tools}}"},
            "reply": {
                "text": "/result/text", "reasoning": "/result/thoughts", "id": "/id", "finish_reason": "/result/end",
                "finish_reasons": finish_reasons, "input_tokens": "/meter/in", "output_tokens": "/meter/out",
            },
            "stream": {
                "framing": "ndjson",
                "reply": {
                    "text": "/piece", "finish_reason": "/end", "finish_reasons": finish_reasons,
                    "input_tokens": "/meter/in", "output_tokens": "/meter/out",
                },
                "done": "[END]", "error_message": "/fault/explanation",
            },
            "error_message": "/fault/explanation", "error_code": "/fault/number",
        },
    })
}

/// Providers of every dialect.
pub fn providers() -> Vec<Provider> {
    let all = [
        json!({"dialect": "openai"}),
        json!({"dialect": "openai", "wires": ["responses"]}),
        json!({"dialect": "anthropic"}),
        json!({"dialect": "gemini"}),
        json!({"dialect": "vertex"}),
        json!({"dialect": "bedrock"}),
        json!({"dialect": "cohere"}),
        json!({"dialect": "wenxinworkshop"}),
        json!({"dialect": "workers_ai"}),
        generic(),
    ];
    all.into_iter().map(provider).collect()
}
