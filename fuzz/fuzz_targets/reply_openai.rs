//! Replies in OpenAI's chat, streamed and whole.

#![no_main]

llm_gateway_fuzz::fuzz_reply!({"dialect": "openai"});
