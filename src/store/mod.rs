//! Where data comes from: KV and D1, and the isolate's own memory in front of them.

pub mod bounded_cache;
#[cfg(target_arch = "wasm32")]
pub mod kv;
