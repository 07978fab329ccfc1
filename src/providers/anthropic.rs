//! Anthropic Messages (<https://docs.anthropic.com/en/api/messages>).

mod reply;
mod request;
pub mod thinking;

use http::HeaderMap;
use serde_json::Value;

use super::counting;
use super::notes::Notes;
use super::openai::faithful_body;
use super::outbound::{Outbound, Serves};
use super::{Api, AuthKind, ReportedError, Source, Target, UpstreamRequest};
use crate::config::Provider;
use crate::error::Problem;
use crate::protocol::chat::ChatRequest;
use crate::protocol::frames::EventReader;

/// The path of Messages below the base URL.
pub const MESSAGES_PATH: &str = "/v1/messages";

/// The path below the base URL where tokens are counted.
const COUNT_PATH: &str = "/v1/messages/count_tokens";

/// The API version that translated requests are written for.
pub const VERSION: &str = "2023-06-01";

/// The dialect.
#[derive(Debug)]
pub struct Anthropic;

impl Outbound for Anthropic {
    fn serves(&self, api: Api, _: Target<'_>) -> Serves {
        match api {
            Api::Messages | Api::CountTokens => Serves::Natively,
            Api::InputTokens => Serves::Translated,
            api => Serves::chat_translated(api),
        }
    }

    fn faithful(&self, api: Api, source: &Source<'_>, target: Target<'_>) -> Result<UpstreamRequest, Problem> {
        let body = faithful_body(source.body, source.members, target.upstream_model, false)?;
        Ok(UpstreamRequest::post(if api == Api::CountTokens { COUNT_PATH } else { MESSAGES_PATH }, body))
    }

    fn count(&self, request: UpstreamRequest, _: Target<'_>) -> Option<UpstreamRequest> {
        counting::of(request, |_| Some(COUNT_PATH.to_owned()), counting::MESSAGES, Value::Object)
    }

    fn counted(&self, reply: &Value) -> Option<u64> {
        counting::number(reply, "input_tokens")
    }

    fn translate(&self, chat: &ChatRequest, target: Target<'_>, notes: &mut Notes) -> Result<UpstreamRequest, Problem> {
        let body = body(chat, target, notes)?;
        Ok(UpstreamRequest::post(MESSAGES_PATH, body.to_string().into_bytes()))
    }

    fn reader(&self, _: Target<'_>) -> Box<dyn EventReader> {
        Box::new(reply::Reader::default())
    }

    fn read_error(&self, _: u16, _: &HeaderMap, body: &Value, _: &Provider) -> ReportedError {
        let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        ReportedError { message: text("/error/message"), code: text("/error/type"), ..ReportedError::default() }
    }

    fn fixed_headers(&self) -> &'static [(&'static str, &'static str)] {
        &[("anthropic-version", VERSION)]
    }

    fn auth(&self, _: &Provider) -> AuthKind {
        AuthKind::Header { name: "x-api-key" }
    }
}

/// The body of a Messages request.
///
/// # Errors
/// As [`Outbound::translate`].
pub(super) fn body(chat: &ChatRequest, target: Target<'_>, notes: &mut Notes) -> Result<Value, Problem> {
    request::translate_request(chat, target, notes)
}

/// Whether an error is told in Anthropic's form.
pub fn is_error(body: &Value) -> bool {
    body.get("type").is_some_and(|kind| kind == "error") && body.get("error").is_some_and(Value::is_object)
}

#[cfg(test)]
mod tests;
