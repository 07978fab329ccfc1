//! Where data comes from: KV and D1, and the isolate's own memory in front of them.

/// The binding of the KV namespace.
pub const KV: &str = "KV";

/// The KV entry with the sealed provider credentials.
pub const CREDENTIALS: &str = "credentials";

/// The KV entry with the public keys of the gateway's own tokens.
pub const PUBLIC_KEYS: &str = "public_keys";

pub mod bounded_cache;
#[cfg(target_arch = "wasm32")]
pub mod kv;
