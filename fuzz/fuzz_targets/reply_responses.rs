//! Replies in OpenAI's Responses, streamed and whole.

#![no_main]

llm_gateway_fuzz::fuzz_reply!({"dialect": "openai", "wires": ["responses"]});
