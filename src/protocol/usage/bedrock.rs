//! The usage objects of Bedrock's Converse.

use serde_json::Value;

use super::Usage;
use super::count::{count, first};

impl Usage {
    /// Reads a Converse usage object. `inputTokens` excludes what was read from and written to the cache; how long what
    /// was written is kept stands in `cacheDetails`. `None` if it counts nothing.
    pub fn from_bedrock(value: &Value) -> Option<Self> {
        let (input, output) = (count(value, "/inputTokens"), count(value, "/outputTokens"));
        if input.is_none() && output.is_none() {
            return None;
        }
        let details = value.get("cacheDetails").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let an_hour = details.iter().filter(|detail| detail.get("ttl").is_some_and(|ttl| ttl == "1h"));
        let an_hour = an_hour.filter_map(|detail| count(detail, "/inputTokens")).fold(0, u64::saturating_add);
        let written = first(value, &["/cacheWriteInputTokens", "/cacheWriteInputTokenCount"]).unwrap_or(0);
        let cache_write_1h = an_hour.min(written);
        Some(Self {
            input: input.unwrap_or(0),
            cache_read: first(value, &["/cacheReadInputTokens", "/cacheReadInputTokenCount"]).unwrap_or(0),
            cache_write_5m: written.saturating_sub(cache_write_1h),
            cache_write_1h,
            output: output.unwrap_or(0),
            ..Self::default()
        })
    }
}
