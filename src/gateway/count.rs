//! Counting the tokens of a request that is not sent: by the provider where it counts, by the gateway's estimate where
//! it does not or fails. Nothing is used by it, so nothing is charged, and only limits on requests see it.

use serde_json::{Value, json};

use super::plan::Lane;
use super::reply::WholeReply;
use crate::http::Reply;
use crate::protocol::chat::ReplyFault;
use crate::protocol::usage::Told;
use crate::providers::Api;
use crate::providers::outbound::Outbound;

/// Says of a count that it is the gateway's estimate.
pub const HEADER: &str = "x-gateway-token-count";

/// A number of tokens in the words of an API.
fn counted(api: Api, tokens: u64) -> Value {
    match api {
        Api::InputTokens => json!({"object": "response.input_tokens", "input_tokens": tokens}),
        _ => json!({"input_tokens": tokens}),
    }
}

/// The gateway's estimate as a reply.
pub fn estimate(api: Api, tokens: u64) -> Reply {
    let mut reply = Reply::json(200, &counted(api, tokens));
    reply.set(HEADER, "estimated");
    reply
}

/// Whether what a provider answered stands, where it was asked in the words of the caller (`natively`) or in others.
/// What it does not count, or cannot count now, is estimated.
pub fn stands(status: u16, natively: bool) -> bool {
    (200..300).contains(&status) || (natively && matches!(status, 400 | 413 | 422))
}

/// Works a provider's count up for the caller.
///
/// # Errors
/// [`ReplyFault`] if it is none.
pub fn read(body: Vec<u8>, api: Api, lane: Lane, dialect: &dyn Outbound) -> Result<WholeReply, ReplyFault> {
    let json: Value = serde_json::from_slice(&body).map_err(|error| ReplyFault::Malformed(error.to_string()))?;
    let translated = lane == Lane::Translated;
    let tokens = if translated { dialect.counted(&json) } else { json.get("input_tokens").and_then(Value::as_u64) };
    let Some(tokens) = tokens else { return Err(ReplyFault::Malformed("it tells no number of tokens".to_owned())) };
    let body = if translated { counted(api, tokens).to_string().into_bytes() } else { body };
    Ok(WholeReply { body, content_type: "application/json", told: Some(Told::default()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::anthropic::Anthropic;
    use crate::providers::gemini::{Gemini, Host};

    #[test]
    fn a_count_is_told_in_the_words_of_the_api() {
        let gemini = Gemini { host: Host::GeminiApi };
        let told = |body: &str, api, lane, dialect: &dyn Outbound| {
            read(body.into(), api, lane, dialect).map(|it| (String::from_utf8(it.body).unwrap(), it.told))
        };
        let nothing = Some(Told::default());
        let native = r#"{ "input_tokens": 7, "more": 1 }"#;
        assert_eq!(told(native, Api::CountTokens, Lane::Native, &Anthropic), Ok((native.to_owned(), nothing)));
        let other = told(r#"{"totalTokens":7}"#, Api::CountTokens, Lane::Translated, &gemini);
        assert_eq!(other, Ok((r#"{"input_tokens":7}"#.to_owned(), nothing)));
        let other = told(native, Api::InputTokens, Lane::Translated, &Anthropic);
        assert_eq!(other, Ok((r#"{"object":"response.input_tokens","input_tokens":7}"#.to_owned(), nothing)));
        for body in ["{}", "[", r#"{"input_tokens":"7"}"#] {
            assert!(told(body, Api::CountTokens, Lane::Native, &Anthropic).is_err());
        }
    }

    #[test]
    fn only_a_callers_own_mistake_is_told_in_place_of_a_count() {
        let standing = |natively| [200, 400, 404, 413, 422, 429, 500, 502, 503, 529].map(|it| stands(it, natively));
        assert_eq!(standing(true), [true, true, false, true, true, false, false, false, false, false]);
        assert_eq!(standing(false).iter().filter(|stands| **stands).count(), 1);
    }
}
