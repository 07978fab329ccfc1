//! Prompt caching: what of a prompt is read from the cache, and what is written to it.

use serde_json::Value;

use super::{MessagesRequest, Usage};
use crate::answer;
use crate::directives;
use crate::server::App;

/// A place up to which a prompt is to be cached.
struct Marker {
    hash: u64,
    tokens: u64,
    one_hour: bool,
}

/// Walks a prompt in the order in which the real API caches it (tools, system, messages) and collects its cache
/// markers. A prefix is the same when everything but markers and directives is the same.
fn markers(request: &MessagesRequest<'_>, total: u64) -> Vec<Marker> {
    let mut markers = Vec::new();
    let mut hash = answer::fnv(0, request.model.as_bytes());
    let mut bytes = 0_u64;
    let mut visit = |block: &Value, markers: &mut Vec<Marker>| {
        hash_value(block, &mut hash, &mut bytes);
        if let Some(control) = block.get("cache_control").filter(|control| control.is_object()) {
            markers.push(Marker {
                hash,
                tokens: bytes.div_ceil(4).min(total),
                one_hour: control.get("ttl").and_then(Value::as_str) == Some("1h"),
            });
        }
    };
    let tools = request.body.get("tools").and_then(Value::as_array);
    for tool in tools.into_iter().flatten() {
        visit(tool, &mut markers);
    }
    let messages = request.messages.iter().filter_map(|message| message.get("content"));
    for content in request.system.into_iter().chain(messages) {
        match content {
            Value::Array(blocks) => {
                for block in blocks {
                    visit(block, &mut markers);
                }
            }
            other => visit(other, &mut markers),
        }
    }
    markers
}

fn hash_value(value: &Value, hash: &mut u64, bytes: &mut u64) {
    match value {
        Value::String(text) => {
            let (clean, _) = directives::extract(text);
            *hash = answer::fnv(*hash, clean.as_bytes());
            *bytes = bytes.saturating_add(u64::try_from(clean.len()).unwrap_or_default());
        }
        Value::Array(items) => {
            for item in items {
                hash_value(item, hash, bytes);
            }
        }
        Value::Object(fields) => {
            for (key, field) in fields.iter().filter(|(key, _)| *key != "cache_control") {
                *hash = answer::fnv(*hash, key.as_bytes());
                hash_value(field, hash, bytes);
            }
        }
        scalar => *hash = answer::fnv(*hash, scalar.to_string().as_bytes()),
    }
}

/// The input side of the usage: what is read from the cache, written to it, and neither.
pub fn input_usage(app: &App, request: &MessagesRequest<'_>, total: u64) -> Usage {
    let mut markers = markers(request, total);
    if let Some(control) = request.body.get("cache_control").filter(|control| control.is_object()) {
        // A marker at the top of the request stands at the end of the prompt.
        let mut hash = answer::fnv(0, request.model.as_bytes());
        let mut bytes = 0;
        for field in ["tools", "system", "messages"] {
            if let Some(value) = request.body.get(field) {
                hash_value(value, &mut hash, &mut bytes);
            }
        }
        markers.push(Marker {
            hash,
            tokens: total,
            one_hour: control.get("ttl").and_then(Value::as_str) == Some("1h"),
        });
    }
    let mut usage = Usage { input: total, ..Usage::default() };
    let Some(last) = markers.last().map(|marker| marker.tokens) else {
        return usage;
    };
    let known = app.remember_prefixes(markers.iter().map(|marker| marker.hash));
    let hit = known.iter().rposition(|known| *known);
    let mut written_to = hit.and_then(|at| markers.get(at)).map_or(0, |marker| marker.tokens);
    usage.read = written_to;
    for marker in markers.iter().skip(hit.map_or(0, |at| at + 1)) {
        let tokens = marker.tokens.saturating_sub(written_to);
        written_to = written_to.max(marker.tokens);
        if marker.one_hour {
            usage.write_1h = usage.write_1h.saturating_add(tokens);
        } else {
            usage.write_5m = usage.write_5m.saturating_add(tokens);
        }
    }
    usage.input = total.saturating_sub(last);
    usage
}
