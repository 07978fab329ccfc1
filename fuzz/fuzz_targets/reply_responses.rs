//! Replies, streamed and whole.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use llm_gateway::config::Provider;
use llm_gateway_fuzz::{provider, reply};
use serde_json::json;

static PROVIDER: LazyLock<Provider> = LazyLock::new(|| provider(json!({"dialect": "openai", "wires": ["responses"]})));

fuzz_target!(|input: &[u8]| reply(&PROVIDER, input));
