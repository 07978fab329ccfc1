//! Replies of Bedrock's Converse, streamed and whole.

#![no_main]

llm_gateway_fuzz::fuzz_reply!({"dialect": "bedrock"});
