//! Replies of the binding of Workers AI, streamed and whole.

#![no_main]

llm_gateway_fuzz::fuzz_reply!({"dialect": "workers_ai"});
