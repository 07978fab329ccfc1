//! Anthropic Messages (<https://docs.anthropic.com/en/api/messages>).

mod reply;
mod request;

use serde_json::Value;

use super::openai::faithful_body;
use super::{Adapter, Api, CredentialHeader, ReportedError, Source, Target, UpstreamRequest};
use crate::config::Provider;
use crate::error::Problem;
use crate::protocol::old_chat::{ChatEvent, ReplyDecoder, ReplyFault};
use crate::secret::Secret;

/// The path of Messages below the base URL.
pub const MESSAGES_PATH: &str = "/v1/messages";

/// The API version that translated requests are written for.
pub const VERSION: &str = "2023-06-01";

/// The tool that carries the answer where a model takes no schema for its answer (`structured_output = "tool"`).
const ANSWER_TOOL: &str = "json_answer";

/// The dialect.
#[derive(Debug)]
pub struct Anthropic;

impl Adapter for Anthropic {
    fn chat_request(&self, source: &Source<'_>, target: Target<'_>) -> Result<UpstreamRequest, Problem> {
        let chat = source.parse_chat()?;
        let (body, dropped_params) = request::translate_request(&chat, target)?;
        Ok(UpstreamRequest {
            path: MESSAGES_PATH.to_owned(),
            headers: Vec::new(),
            body: body.to_string().into_bytes(),
            dropped_params,
        })
    }

    fn messages_request(&self, source: &Source<'_>, target: Target<'_>) -> Option<Result<UpstreamRequest, Problem>> {
        Some(faithful_body(source.body, source.members, target.upstream_model, false).map(|body| UpstreamRequest {
            path: MESSAGES_PATH.to_owned(),
            headers: Vec::new(),
            body,
            dropped_params: Vec::new(),
        }))
    }

    fn speaks(&self, api: Api) -> bool {
        api == Api::Messages
    }

    fn decode_body(&self, body: &[u8], target: Target<'_>) -> Result<Vec<ChatEvent>, ReplyFault> {
        reply::decode_body(body, target)
    }

    fn stream_decoder(&self, target: Target<'_>) -> Box<dyn ReplyDecoder> {
        Box::new(reply::Decoder::new(target))
    }

    fn decode_error(&self, body: &Value, _: &Provider) -> ReportedError {
        let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        ReportedError { message: text("/error/message"), code: text("/error/type"), param: None }
    }

    fn fixed_headers(&self) -> &'static [(&'static str, &'static str)] {
        &[("anthropic-version", VERSION)]
    }

    fn credential_header(&self, credential: &Secret<String>, _: &Provider) -> CredentialHeader {
        CredentialHeader { name: "x-api-key", value: credential.clone() }
    }
}

#[cfg(test)]
mod tests;
