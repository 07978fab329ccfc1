//! Anthropic's usage objects.

use serde_json::{Value, json};

use super::Usage;
use super::count::count;

impl Usage {
    /// Reads an Anthropic usage object into `self`, leaving the counts that it does not mention as they are: in a
    /// stream `message_start` has the input side and `message_delta` the output so far, and either may repeat a count.
    ///
    /// The counts at the top leave out what compaction and advisors used, though it is billed; `iterations` has it.
    pub fn merge_anthropic(&mut self, value: &Value) {
        let beside = Self::beside_the_top(value);
        if let Some(input) = count(value, "/input_tokens") {
            self.input = input.saturating_add(beside.input);
        }
        if let Some(read) = count(value, "/cache_read_input_tokens") {
            self.cache_read = read.saturating_add(beside.cache_read);
        }
        let hour = count(value, "/cache_creation/ephemeral_1h_input_tokens");
        if let Some(hour) = hour {
            self.cache_write_1h = hour.saturating_add(beside.cache_write_1h);
        } else {
            self.cache_write_1h = self.cache_write_1h.max(beside.cache_write_1h);
        }
        // The total counts even where the provider splits it and the parts do not add up to it.
        if let Some(total) = count(value, "/cache_creation_input_tokens") {
            let total = total.saturating_add(beside.cache_write_5m).saturating_add(beside.cache_write_1h);
            self.cache_write_1h = self.cache_write_1h.min(total);
            self.cache_write_5m = total.saturating_sub(self.cache_write_1h);
        } else if let Some(minutes) = count(value, "/cache_creation/ephemeral_5m_input_tokens") {
            self.cache_write_5m = minutes.saturating_add(beside.cache_write_5m);
        }
        if let Some(output) = count(value, "/output_tokens") {
            let reasoning =
                count(value, "/output_tokens_details/thinking_tokens").unwrap_or(self.output_reasoning).min(output);
            self.output_reasoning = reasoning;
            self.output = output.saturating_sub(reasoning).saturating_add(beside.output);
        }
        if let Some(searches) = count(value, "/server_tool_use/web_search_requests") {
            self.web_searches = searches;
        }
    }

    /// Anthropic's usage object. What it has no member for counts with the rest: sound and pictures as input and output.
    pub fn to_anthropic(&self) -> Value {
        let input = self.input.saturating_add(self.input_audio).saturating_add(self.input_image);
        let mut usage = json!({
            "input_tokens": input,
            "cache_creation_input_tokens": self.cache_write_5m.saturating_add(self.cache_write_1h),
            "cache_read_input_tokens": self.cache_read,
            "cache_creation": {
                "ephemeral_5m_input_tokens": self.cache_write_5m,
                "ephemeral_1h_input_tokens": self.cache_write_1h,
            },
            "output_tokens": self.output_total(),
        });
        if let Some(usage) = usage.as_object_mut() {
            if self.output_reasoning > 0 {
                usage.insert("output_tokens_details".to_owned(), json!({"thinking_tokens": self.output_reasoning}));
            }
            if self.web_searches > 0 {
                usage.insert("server_tool_use".to_owned(), json!({"web_search_requests": self.web_searches}));
            }
        }
        usage
    }

    /// What the iterations used that Anthropic's counts at the top leave out.
    fn beside_the_top(value: &Value) -> Self {
        let mut sum = Self::default();
        let iterations = value.get("iterations").and_then(Value::as_array).into_iter().flatten();
        for iteration in iterations {
            let kind = iteration.get("type").and_then(Value::as_str);
            if let Some("compaction" | "advisor_message") = kind {
                let tokens = |pointer: &str| count(iteration, pointer).unwrap_or(0);
                let hour = tokens("/cache_creation/ephemeral_1h_input_tokens");
                let written = tokens("/cache_creation_input_tokens");
                sum.input = sum.input.saturating_add(tokens("/input_tokens"));
                sum.cache_read = sum.cache_read.saturating_add(tokens("/cache_read_input_tokens"));
                sum.cache_write_1h = sum.cache_write_1h.saturating_add(hour);
                sum.cache_write_5m = sum.cache_write_5m.saturating_add(written.saturating_sub(hour));
                sum.output = sum.output.saturating_add(tokens("/output_tokens"));
            }
        }
        sum
    }
}
