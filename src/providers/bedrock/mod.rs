//! Amazon Bedrock's Converse and ConverseStream
//! (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html>).

mod conversation;
mod error;
mod media;
mod model;
mod reasoning;
mod reply;
mod request;
#[cfg(test)]
mod tests;
mod tools;

use http::HeaderMap;
use serde_json::{Value, json};

pub(super) use self::request::model_path;
use super::counting;
use super::notes::Notes;
use super::outbound::{Outbound, Serves};
use super::side::{self, Side};
use super::{Api, ReportedError, Target, UpstreamRequest};
use crate::config::Provider;
use crate::error::Problem;
use crate::protocol::chat::ChatRequest;
use crate::protocol::event_stream::EventStreamDecoder;
use crate::protocol::frames::{EventReader, Framing};

/// The dialect.
#[derive(Debug)]
pub struct Bedrock;

impl Outbound for Bedrock {
    fn serves(&self, api: Api, target: Target<'_>) -> Serves {
        // Those of other vendors cannot be counted.
        let counts = api.is_count() && counting::without_region(target.upstream_model).starts_with("anthropic.");
        if counts || self.side(api, target).is_some() { Serves::Translated } else { Serves::chat_translated(api) }
    }

    fn count(&self, request: UpstreamRequest, target: Target<'_>) -> Option<UpstreamRequest> {
        let path = |_: &str| {
            let path = request::path(counting::without_region(target.upstream_model), false);
            Some(format!("{}/count-tokens", path.strip_suffix("/converse")?))
        };
        counting::of(request, path, counting::CONVERSE, |body| json!({"input": {"converse": body}}))
    }

    fn counted(&self, reply: &Value) -> Option<u64> {
        counting::number(reply, "inputTokens")
    }

    fn side(&self, api: Api, target: Target<'_>) -> Option<&'static dyn Side> {
        if api == Api::Embeddings { side::bedrock_embeddings(target.upstream_model) } else { None }
    }

    fn translate(&self, chat: &ChatRequest, target: Target<'_>, notes: &mut Notes) -> Result<UpstreamRequest, Problem> {
        let body = request::body(chat, target, notes)?.to_string().into_bytes();
        Ok(UpstreamRequest::post(request::path(target.upstream_model, chat.stream), body))
    }

    fn framing(&self, _: Target<'_>) -> Box<dyn Framing> {
        Box::new(EventStreamDecoder::default())
    }

    fn reader(&self, target: Target<'_>) -> Box<dyn EventReader> {
        Box::new(reply::Reader::new(target.upstream_model))
    }

    fn read_error(&self, _: u16, headers: &HeaderMap, body: &Value, _: &Provider) -> ReportedError {
        error::read(headers, body)
    }
}
