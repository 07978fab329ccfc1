//! Usage by its shape, for replies of which nobody knows the dialect.

use serde_json::Value;

use super::{BillingFacts, Told, Usage, side};

/// Members that a reply or an event may hold the usage in, as it would stand at the top otherwise.
const INSIDE: &[&str] = &["response", "message", "delta", "metadata", "meta", "x_groq"];

impl Told {
    /// Reads the usage of a reply, or of an event of a streamed one, in any dialect, into what was told `before`; `None` if
    /// it tells nothing.
    #[must_use]
    pub fn recognise(reply: &Value, before: Option<Self>) -> Option<Self> {
        own(reply, before).or_else(|| INSIDE.iter().find_map(|name| own(reply.get(name)?, before)))
    }
}

/// What is told at the top of this object.
fn own(reply: &Value, before: Option<Told>) -> Option<Told> {
    if let Some(usage) = reply.get("usageMetadata") {
        return Some(Told { usage: Usage::from_gemini(usage)?, facts: BillingFacts::from_gemini(usage) });
    }
    if reply.get("billed_units").is_some() {
        return Usage::from_cohere(reply).map(Told::from);
    }
    let usage = reply.get("usage").filter(|usage| usage.is_object())?;
    if usage.get("type").is_some_and(|it| it == "duration") {
        return side::heard(usage).map(Told::from);
    }
    if let Some(told) = Told::from_openai(reply) {
        return Some(told);
    }
    let has = |name: &str| usage.get(name).is_some();
    // Of a message whose input was told at its beginning the end may tell the output alone.
    let is_message = reply.get("type").is_some_and(|it| it == "message" || it == "message_delta")
        || has("cache_read_input_tokens")
        || has("cache_creation_input_tokens");
    if is_message && (has("input_tokens") || has("output_tokens")) {
        let mut told = before.unwrap_or_default();
        told.merge_anthropic(usage);
        return Some(told);
    }
    if let Some(usage) = Usage::from_responses(usage) {
        let usage = Usage::from_responses_reply(reply).unwrap_or(usage);
        return Some(Told { usage, facts: BillingFacts::from_openai(reply) });
    }
    if let Some(usage) = Usage::from_bedrock(usage) {
        return Some(Told { usage, facts: BillingFacts::from_bedrock(reply) });
    }
    Usage::from_cohere(usage).map(Told::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn counts(reply: &Value) -> Option<(u64, u64)> {
        Told::recognise(reply, None).map(|told| (told.usage.input_total(), told.usage.output_total()))
    }

    #[test]
    fn every_dialect_is_known_by_its_usage() {
        for (reply, told) in [
            (json!({"usage": {"prompt_tokens": 3, "completion_tokens": 2}}), Some((3, 2))),
            (json!({"usage": {"prompt_tokens": 3, "total_tokens": 3}}), Some((3, 0))),
            (json!({"choices": [], "x_groq": {"usage": {"prompt_tokens": 3, "completion_tokens": 2}}}), Some((3, 2))),
            (json!({"object": "response", "usage": {"input_tokens": 3, "output_tokens": 2}}), Some((3, 2))),
            (
                json!({"type": "response.completed", "response": {"usage": {"input_tokens": 3, "output_tokens": 2}}}),
                Some((3, 2)),
            ),
            (
                json!({"type": "message", "usage": {"input_tokens": 3, "cache_read_input_tokens": 4, "output_tokens": 2}}),
                Some((7, 2)),
            ),
            (json!({"usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2}}), Some((3, 2))),
            (json!({"usage": {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}}), Some((3, 2))),
            (json!({"metadata": {"usage": {"inputTokens": 3, "outputTokens": 2}}}), Some((3, 2))),
            (json!({"usage": {"billed_units": {"input_tokens": 3, "output_tokens": 2}}}), Some((3, 2))),
            (json!({"meta": {"billed_units": {"input_tokens": 3}}}), Some((3, 0))),
            (json!({"type": "message-end", "delta": {"usage": {"billed_units": {"output_tokens": 2}}}}), Some((0, 2))),
            (json!({"usage": null}), None),
            (json!({"usage": {"type": "other"}}), None),
            (json!([{"usage": {"prompt_tokens": 3}}]), None),
            (json!("usage"), None),
        ] {
            assert_eq!(counts(&reply), told, "{reply}");
        }
    }

    #[test]
    fn sound_is_known_by_its_time() {
        let told = Told::recognise(&json!({"text": "a", "usage": {"type": "duration", "seconds": 9}}), None);
        assert_eq!(told.map(|told| told.usage.audio_ms), Some(9_000));
    }

    #[test]
    fn the_end_of_a_message_adds_to_its_beginning() {
        let start = json!({"type": "message_start", "message": {"type": "message",
            "usage": {"input_tokens": 9, "cache_read_input_tokens": 4, "output_tokens": 1}}});
        let end = json!({"type": "message_delta", "usage": {"output_tokens": 5}});
        let told = Told::recognise(&end, Told::recognise(&start, None)).unwrap();
        assert_eq!((told.usage.input_total(), told.usage.output_total()), (13, 5));
    }
}
