//! Gemini's and Vertex's `usageMetadata`.

use serde_json::Value;

use super::Usage;
use super::count::count;
use super::openai::take;

impl Usage {
    /// Reads a `usageMetadata` object. Cached tokens lie inside `promptTokenCount`; thoughts outside
    /// `candidatesTokenCount`; what tools brought in counts as input. `None` if it counts nothing.
    pub fn from_gemini(value: &Value) -> Option<Self> {
        let prompt = count(value, "/promptTokenCount");
        let candidates = count(value, "/candidatesTokenCount").or_else(|| count(value, "/responseTokenCount"));
        if prompt.is_none() && candidates.is_none() {
            return None;
        }
        let tools = count(value, "/toolUsePromptTokenCount").unwrap_or(0);
        let thoughts = count(value, "/thoughtsTokenCount").unwrap_or(0);
        let mut input = prompt.unwrap_or(0);
        let mut output = candidates.unwrap_or(0);
        let told = input.saturating_add(tools).saturating_add(output).saturating_add(thoughts);
        // What only the total has is thoughts, too.
        let untold = count(value, "/totalTokenCount").unwrap_or(0).saturating_sub(told);

        let cache_read = take(&mut input, count(value, "/cachedContentTokenCount"));
        let uncached = |modality: &str| {
            let of_prompt = tokens(value, "promptTokensDetails", modality)?;
            Some(of_prompt.saturating_sub(tokens(value, "cacheTokensDetails", modality).unwrap_or(0)))
        };
        let input_audio = take(&mut input, uncached("AUDIO"));
        let input_image = take(&mut input, uncached("IMAGE"));
        let output_audio = take(&mut output, tokens(value, "candidatesTokensDetails", "AUDIO"));
        let output_image = take(&mut output, tokens(value, "candidatesTokensDetails", "IMAGE"));
        Some(Self {
            input: input.saturating_add(tools),
            cache_read,
            input_audio,
            input_image,
            output,
            output_reasoning: thoughts.saturating_add(untold),
            output_audio,
            output_image,
            ..Self::default()
        })
    }
}

/// The tokens of a modality; `None` if none are told.
fn tokens(value: &Value, list: &str, modality: &str) -> Option<u64> {
    let details = value.get(list)?.as_array()?;
    let of_it = details.iter().filter(|detail| detail.get("modality").is_some_and(|it| it == modality));
    of_it.filter_map(|detail| count(detail, "/tokenCount")).reduce(u64::saturating_add)
}
