//! Wire formats: what stands on the wire, as data, and the codecs for it. Nothing here knows of Workers.

pub mod chat;
pub mod cost_tag;
pub mod json_scan;
pub mod openai_chat;
pub mod sse;
pub mod usage;
