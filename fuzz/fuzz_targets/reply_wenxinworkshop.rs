//! Replies of Baidu's wenxinworkshop, streamed and whole.

#![no_main]

llm_gateway_fuzz::fuzz_reply!({"dialect": "wenxinworkshop"});
