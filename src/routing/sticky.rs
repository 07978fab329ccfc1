//! What a request is kept with a target by.

use super::score::hash;
use super::traits::RequestView;
use crate::config::{Sticky, StickyBy};

/// Longest value of a session or header that counts, in bytes; of a longer one its beginning.
const VALUE_BYTES: usize = 1_024;

/// What requests have in common that belong together; `None` if this one has nothing of the kind.
pub(super) fn key(sticky: &Sticky, request: &dyn RequestView) -> Option<u64> {
    match sticky.by {
        StickyBy::Session => session(request).map(|session| own(request, b"session", &session)),
        StickyBy::PromptPrefix => prompt_prefix(request, sticky.prefix_bytes),
        StickyBy::User => request.user().map(|user| own(request, b"user", user)),
        StickyBy::Key => Some(hash(0, request.key_id().as_bytes())),
        StickyBy::Header => {
            let value = request.header(sticky.header.as_deref()?).map(str::trim);
            value.filter(|value| !value.is_empty()).map(|value| hash(0, cut(value.as_bytes())))
        }
    }
}

/// The key of something that an account has named as it likes: the same name of another account is another thing.
fn own(request: &dyn RequestView, kind: &[u8], name: &str) -> u64 {
    hash(hash(hash(0, kind), request.account().as_bytes()), cut(name.as_bytes()))
}

fn cut(value: &[u8]) -> &[u8] {
    value.get(..VALUE_BYTES).unwrap_or(value)
}

/// The session's name, where one is given.
fn session(request: &dyn RequestView) -> Option<String> {
    let header = |name: &str| request.header(name).map(|value| value.trim().to_owned());
    let text = |raw: &[u8]| serde_json::from_slice::<String>(raw).ok();
    let user_id = |raw: &[u8]| {
        let metadata = serde_json::from_slice::<serde_json::Value>(raw).ok()?;
        metadata.get("user_id")?.as_str().map(str::to_owned)
    };
    let named = |name: Option<String>| name.filter(|name| !name.is_empty());
    named(header("x-session-id"))
        .or_else(|| named(header("x-gateway-session")))
        .or_else(|| named(request.param("prompt_cache_key").and_then(text)))
        .or_else(|| named(request.param("metadata").and_then(user_id)))
        .or_else(|| named(request.param("user").and_then(text)))
}

/// The hash of the prompt's first bytes as they stand in the body, in the order in which providers cache them: tools,
/// system prompt, messages.
fn prompt_prefix(request: &dyn RequestView, bytes: u64) -> Option<u64> {
    let mut left = usize::try_from(bytes).unwrap_or(usize::MAX);
    let mut key = None;
    for name in ["tools", "system", "instructions", "messages", "input"] {
        let Some(raw) = request.param(name) else { continue };
        let part = raw.get(..left).unwrap_or(raw);
        key = Some(hash(key.unwrap_or(0), part));
        left = left.saturating_sub(part.len());
        if left == 0 {
            break;
        }
    }
    key
}

#[cfg(test)]
mod tests;
