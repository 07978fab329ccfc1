//! OpenAI's usage objects and those of the many providers that imitate them.

use serde_json::{Value, json};

use super::Usage;
use super::count::{count, first};

impl Usage {
    /// Reads a Chat Completions or embeddings usage object. Variants of OpenAI-like providers are understood: cache hits
    /// under `prompt_cache_hit_tokens` (DeepSeek), `cached_tokens` or `num_cached_tokens` at the top level (Moonshot,
    /// Mistral), and reasoning reported beside `completion_tokens` instead of inside it (xAI, Perplexity's research), or told
    /// by nothing but the total (Gemini's imitation).
    ///
    /// `None` if `value` is not an object that counts anything.
    pub fn from_openai(value: &Value) -> Option<Self> {
        let (prompt, completion) = (count(value, "/prompt_tokens"), count(value, "/completion_tokens"));
        if prompt.is_none() && completion.is_none() {
            return None;
        }
        // Perplexity's models that research tell what they have read and thought beside everything else.
        let total = count(value, "/total_tokens");
        let thoughts = count(value, "/reasoning_tokens").filter(|_| count(value, "/citation_tokens").is_some());
        let left_out = |completion: u64| {
            let beside = total.unwrap_or(0).saturating_sub(prompt.unwrap_or(0).saturating_add(completion));
            thoughts.unwrap_or(0).saturating_sub(beside)
        };
        let completion = completion.map(|completion| completion.saturating_add(left_out(completion)));
        let read = count(value, "/citation_tokens").unwrap_or(0);
        let (prompt, total) =
            (prompt.map(|prompt| prompt.saturating_add(read)), total.map(|total| total.saturating_add(read)));
        let details = Details {
            cache_read: first(
                value,
                &[
                    "/prompt_tokens_details/cached_tokens",
                    "/prompt_cache_hit_tokens",
                    "/cached_tokens",
                    "/num_cached_tokens",
                ],
            ),
            cache_write: first(
                value,
                &[
                    "/prompt_tokens_details/cache_write_tokens",
                    "/prompt_tokens_details/cache_creation_input_tokens",
                    "/prompt_tokens_details/cache_creation_tokens",
                ],
            ),
            input_audio: count(value, "/prompt_tokens_details/audio_tokens"),
            input_image: count(value, "/prompt_tokens_details/image_tokens"),
            reasoning: first(value, &["/completion_tokens_details/reasoning_tokens", "/reasoning_tokens"]),
            output_audio: count(value, "/completion_tokens_details/audio_tokens"),
            output_image: count(value, "/completion_tokens_details/image_tokens"),
        };
        let usage = details.within(prompt.unwrap_or(0), completion.unwrap_or(0), total);
        Some(Self { web_searches: searches(value), ..usage })
    }

    /// Reads a Responses usage object. `None` if `value` is not an object that counts anything.
    pub fn from_responses(value: &Value) -> Option<Self> {
        let (input, output) = (count(value, "/input_tokens"), count(value, "/output_tokens"));
        if input.is_none() && output.is_none() {
            return None;
        }
        let details = Details {
            cache_read: count(value, "/input_tokens_details/cached_tokens"),
            cache_write: count(value, "/input_tokens_details/cache_write_tokens"),
            input_audio: count(value, "/input_tokens_details/audio_tokens"),
            input_image: count(value, "/input_tokens_details/image_tokens"),
            reasoning: count(value, "/output_tokens_details/reasoning_tokens"),
            output_audio: count(value, "/output_tokens_details/audio_tokens"),
            output_image: count(value, "/output_tokens_details/image_tokens"),
        };
        let usage = details.within(input.unwrap_or(0), output.unwrap_or(0), count(value, "/total_tokens"));
        Some(Self { web_searches: searches(value), ..usage })
    }

    /// The Responses usage object.
    pub fn to_responses(&self) -> Value {
        let (input, output) = (self.input_total(), self.output_total());
        let mut usage = json!({
            "input_tokens": input,
            "input_tokens_details": {"cached_tokens": self.cache_read},
            "output_tokens": output,
            "output_tokens_details": {"reasoning_tokens": self.output_reasoning},
            "total_tokens": input.saturating_add(output),
        });
        let written = self.cache_write_5m.saturating_add(self.cache_write_1h);
        for (details, name, tokens) in [
            ("input_tokens_details", "cache_write_tokens", written),
            ("input_tokens_details", "audio_tokens", self.input_audio),
            ("input_tokens_details", "image_tokens", self.input_image),
            ("output_tokens_details", "audio_tokens", self.output_audio),
            ("output_tokens_details", "image_tokens", self.output_image),
        ] {
            if tokens > 0
                && let Some(details) = usage.get_mut(details).and_then(Value::as_object_mut)
            {
                details.insert(name.to_owned(), tokens.into());
            }
        }
        usage
    }

    /// Reads a whole reply of the Responses API, in which what the provider's own tools did stands among the output.
    pub fn from_responses_reply(reply: &Value) -> Option<Self> {
        let usage = Self::from_responses(reply.get("usage")?)?;
        let items = reply.get("output").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let made = |kind: &str| {
            let is_one = |item: &&Value| {
                item.get("type").is_some_and(|it| it == kind)
                    && item.get("status").is_none_or(|status| status == "completed")
                    // Opening a page that a search has found is no search.
                    && item.pointer("/action/type").is_none_or(|action| action == "search")
            };
            items.iter().filter(is_one).count() as u64
        };
        Some(Self {
            web_searches: usage.web_searches.max(made("web_search_call")),
            images: usage.images.max(made("image_generation_call")),
            ..usage
        })
    }
}

/// Searches, by the names that OpenRouter, xAI and Perplexity have for them.
fn searches(usage: &Value) -> u64 {
    let told = first(
        usage,
        &[
            "/server_tool_use/web_search_requests",
            "/server_tool_use_details/web_search_requests",
            "/server_side_tool_usage_details/web_search_calls",
            "/num_search_queries",
        ],
    );
    // Perplexity searches for every request whose usage says how much.
    told.unwrap_or_else(|| u64::from(usage.get("search_context_size").is_some_and(Value::is_string)))
}

/// Parts of the prompt and of the completion.
struct Details {
    cache_read: Option<u64>,
    cache_write: Option<u64>,
    input_audio: Option<u64>,
    input_image: Option<u64>,
    reasoning: Option<u64>,
    output_audio: Option<u64>,
    output_image: Option<u64>,
}

impl Details {
    /// Takes the parts out of their wholes, one after the other, none larger than what the ones before have left.
    fn within(&self, prompt: u64, completion: u64, total: Option<u64>) -> Usage {
        let mut input = prompt;
        let cache_read = take(&mut input, self.cache_read);
        let cache_write_5m = take(&mut input, self.cache_write);
        let input_audio = take(&mut input, self.input_audio);
        let input_image = take(&mut input, self.input_image);

        // What the total has beyond prompt and completion is reasoning that was left out of the completion.
        let beside = total.unwrap_or(0).saturating_sub(prompt.saturating_add(completion));
        let mut output = completion.saturating_add(beside);
        let output_reasoning = take(&mut output, Some(self.reasoning.unwrap_or(0).max(beside)));
        let output_audio = take(&mut output, self.output_audio);
        let output_image = take(&mut output, self.output_image);
        Usage {
            input,
            cache_read,
            cache_write_5m,
            input_audio,
            input_image,
            output,
            output_reasoning,
            output_audio,
            output_image,
            ..Usage::default()
        }
    }
}

/// Takes a part out of what is left.
pub(super) fn take(left: &mut u64, part: Option<u64>) -> u64 {
    let part = part.unwrap_or(0).min(*left);
    *left = left.saturating_sub(part);
    part
}
