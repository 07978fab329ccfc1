//! Replies that are mapped by configuration, streamed and whole.

#![no_main]

llm_gateway_fuzz::fuzz_reply!(llm_gateway_fuzz::generic());
