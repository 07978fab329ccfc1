//! Requests of callers, and what they become for providers.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use llm_gateway::config::Provider;
use llm_gateway::protocol::inbound::responses::Responses;
use llm_gateway_fuzz::{providers, request};

static PROVIDERS: LazyLock<Vec<Provider>> = LazyLock::new(providers);

fuzz_target!(|input: &[u8]| request(&Responses, &PROVIDERS, input));
