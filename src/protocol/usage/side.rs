//! What replies that are no chat tell of what they used.

use serde_json::Value;

use super::count::first;
use super::{BillingFacts, Told, Usage};
use crate::protocol::Api;
use crate::protocol::sound::subtitles_ms;

impl Told {
    /// Reads a reply of an API that is no chat, or the event that ends a streamed one. `images` is how many images it
    /// brings. `None` if it tells nothing.
    pub fn from_side(api: Api, reply: &Value, images: u64) -> Option<Self> {
        let counted = reply.get("usage");
        let usage = match api {
            Api::ImageGeneration | Api::ImageEdit => made(counted, images),
            Api::Speech => counted.and_then(Usage::from_responses).map(spoken),
            // Without usage, OpenAI's verbose form still tells how long the sound is.
            Api::Transcription | Api::Translation => counted.and_then(heard).or_else(|| timed(reply, "duration")),
            _ => read(reply),
        }?;
        Some(Self { usage, facts: BillingFacts::from_openai(reply) })
    }
}

impl Told {
    /// Reads a transcript that is no JSON: subtitles say how long the sound was that was listened to.
    pub fn from_transcript(text: &str) -> Option<Self> {
        let audio_ms = subtitles_ms(text)?;
        Some(Usage { audio_ms, ..Usage::default() }.into())
    }
}

/// Input alone, in tokens: OpenAI's form and those of Jina and Voyage, which tell the total only; Cohere's; or searches.
fn read(reply: &Value) -> Option<Usage> {
    let tokens = reply.get("usage").and_then(|it| first(it, &["/prompt_tokens", "/input_tokens", "/total_tokens"]));
    match tokens {
        Some(input) => Some(Usage { input, ..Usage::default() }),
        None => Usage::from_cohere(reply.get("meta")?),
    }
}

/// Images, and tokens where there are any. What comes out is an image unless something else is said.
fn made(usage: Option<&Value>, images: u64) -> Option<Usage> {
    let tokens = usage.and_then(Usage::from_responses);
    if tokens.is_none() && images == 0 {
        return None;
    }
    let mut tokens = tokens.unwrap_or_default();
    if usage.is_some_and(|usage| usage.get("output_tokens_details").is_none()) {
        tokens.output_image = std::mem::take(&mut tokens.output);
    }
    Some(Usage { images, ..tokens })
}

/// Sound, by its time or in tokens.
pub(super) fn heard(usage: &Value) -> Option<Usage> {
    // Mistral tells tokens as well, but charges the time.
    if let Some(usage) = timed(usage, "seconds").or_else(|| timed(usage, "prompt_audio_seconds")) {
        return Some(usage);
    }
    let mut counted = Usage::from_responses(usage)?;
    let sound = first(usage, &["/input_token_details/audio_tokens"]).unwrap_or(0).min(counted.input);
    counted.input = counted.input.saturating_sub(sound);
    counted.input_audio = counted.input_audio.saturating_add(sound);
    Some(counted)
}

/// Sound of so many seconds, as a number or as a text.
fn timed(told: &Value, name: &str) -> Option<Usage> {
    let seconds = told.get(name)?;
    let seconds = seconds.as_f64().or_else(|| seconds.as_str()?.parse().ok()).filter(|seconds| *seconds >= 0.0)?;
    Some(Usage { audio_ms: (seconds * 1_000.0).ceil() as u64, ..Usage::default() })
}

fn spoken(usage: Usage) -> Usage {
    Usage { output: 0, output_audio: usage.output_total(), output_reasoning: 0, ..usage }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(api: Api, reply: Value) -> Option<Usage> {
        Told::from_side(api, &reply, 2).map(|told| told.usage)
    }

    #[test]
    fn every_form_is_understood() {
        let input = |input| Some(Usage { input, ..Usage::default() });
        let openai = json!({"usage": {"prompt_tokens": 8, "total_tokens": 8}});
        assert_eq!(told(Api::Embeddings, openai), input(8));
        assert_eq!(told(Api::Rerank, json!({"usage": {"total_tokens": 815}})), input(815));
        let cohere = json!({"meta": {"billed_units": {"input_tokens": 5, "image_tokens": 0}}});
        assert_eq!(told(Api::Embeddings, cohere), input(5));
        let searched = Usage { web_searches: 1, ..Usage::default() };
        assert_eq!(told(Api::Rerank, json!({"meta": {"billed_units": {"search_units": 1}}})), Some(searched));
        assert_eq!(told(Api::Moderations, json!({"results": []})), None);
    }

    #[test]
    fn the_time_of_sound_is_found_wherever_it_is_told() {
        let heard = |reply| told(Api::Transcription, reply);
        let lasting = |audio_ms| Some(Usage { audio_ms, ..Usage::default() });
        assert_eq!(heard(json!({"usage": {"type": "duration", "seconds": 9.2}})), lasting(9_200));
        assert_eq!(heard(json!({"text": "a", "duration": 8.47})), lasting(8_470));
        assert_eq!(heard(json!({"text": "a", "duration": "8.47"})), lasting(8_470));
        let mistral = json!({"usage": {"prompt_audio_seconds": 6, "prompt_tokens": 4, "completion_tokens": 27}});
        assert_eq!(heard(mistral), lasting(6_000));
        assert_eq!(heard(json!({"text": "a", "duration": -1})), None);
    }

    #[test]
    fn images_are_counted_with_their_tokens() {
        let alone = Usage { images: 2, ..Usage::default() };
        assert_eq!(told(Api::ImageGeneration, json!({"created": 1})), Some(alone));
        let usage = json!({"usage": {"input_tokens": 50, "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
            "output_tokens": 4160, "total_tokens": 4210}});
        let counted = Usage { input: 10, input_image: 40, output_image: 4160, ..alone };
        assert_eq!(told(Api::ImageEdit, usage), Some(counted));
        let apart = json!({"usage": {"input_tokens": 10, "output_tokens": 100,
            "output_tokens_details": {"text_tokens": 30, "image_tokens": 70}}});
        let counted = Usage { input: 10, output: 30, output_image: 70, ..alone };
        assert_eq!(told(Api::ImageGeneration, apart), Some(counted));
    }

    #[test]
    fn what_is_heard_is_counted_by_time_or_in_tokens() {
        let by_time = json!({"text": "hi", "usage": {"type": "duration", "seconds": 9.0004}});
        assert_eq!(told(Api::Transcription, by_time), Some(Usage { audio_ms: 9_001, ..Usage::default() }));
        let tokens = json!({"usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 45,
            "input_token_details": {"text_tokens": 4, "audio_tokens": 10}, "total_tokens": 59}});
        let counted = Usage { input: 4, input_audio: 10, output: 45, ..Usage::default() };
        assert_eq!(told(Api::Transcription, tokens), Some(counted));
    }

    #[test]
    fn speech_is_audio() {
        let usage = json!({"type": "speech.audio.done", "usage": {"input_tokens": 14, "output_tokens": 101}});
        let counted = Usage { input: 14, output_audio: 101, ..Usage::default() };
        assert_eq!(told(Api::Speech, usage), Some(counted));
    }
}
