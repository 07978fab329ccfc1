//! Cohere's usage objects (version 2 of its API).

use serde_json::Value;

use super::Usage;
use super::count::{count, first};
use super::openai::take;

impl Usage {
    /// Reads a usage object. What is billed counts: `tokens` also has what Cohere adds to every prompt and does not
    /// charge, and is used only where `billed_units` is missing. `None` if it counts nothing.
    pub fn from_cohere(value: &Value) -> Option<Self> {
        let searches = count(value, "/billed_units/search_units");
        let billed = ["/billed_units/input_tokens", "/billed_units/output_tokens"].map(|it| count(value, it));
        let pictures = count(value, "/billed_units/image_tokens");
        let (input, output, cached) = match billed {
            [None, None] if searches.is_none() && pictures.is_none() => {
                let counted = (count(value, "/tokens/input_tokens"), count(value, "/tokens/output_tokens"));
                (counted.0, counted.1, first(value, &["/cached_tokens", "/tokens/cached_tokens"]))
            }
            [input, output] => (input, output, None),
        };
        if input.is_none() && output.is_none() && searches.is_none() && pictures.is_none() {
            return None;
        }
        let mut input = input.unwrap_or(0);
        let cache_read = take(&mut input, cached);
        Some(Self {
            input,
            cache_read,
            input_image: pictures.unwrap_or(0),
            output: output.unwrap_or(0),
            web_searches: searches.unwrap_or(0),
            ..Self::default()
        })
    }
}
