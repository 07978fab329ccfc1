//! Cohere's chat, embeddings and rankings, version 2 of its API (<https://docs.cohere.com/reference/chat>). The base URL ends before `/v2`:
//! `https://api.cohere.com`. Members that it does not know are refused, wherever they stand.

mod messages;
mod reply;
mod request;

use http::HeaderMap;
use serde_json::Value;

use super::notes::Notes;
use super::outbound::{Outbound, Serves};
use super::side::{self, Side};
use super::{Api, ReportedError, Target, UpstreamRequest};
use crate::config::Provider;
use crate::error::Problem;
use crate::protocol::chat::ChatRequest;
use crate::protocol::frames::EventReader;

/// The dialect.
#[derive(Debug)]
pub struct Cohere;

impl Outbound for Cohere {
    fn serves(&self, api: Api, target: Target<'_>) -> Serves {
        if self.side(api, target).is_some() { Serves::Translated } else { Serves::chat_translated(api) }
    }

    fn side(&self, api: Api, _: Target<'_>) -> Option<&'static dyn Side> {
        match api {
            Api::Embeddings => Some(side::COHERE_EMBEDDINGS),
            Api::Rerank => Some(side::COHERE_RERANK),
            _ => None,
        }
    }

    fn translate(&self, chat: &ChatRequest, target: Target<'_>, notes: &mut Notes) -> Result<UpstreamRequest, Problem> {
        let body = request::write(chat, target, notes)?;
        Ok(UpstreamRequest::post("/v2/chat", body.to_string().into_bytes()))
    }

    fn reader(&self, _: Target<'_>) -> Box<dyn EventReader> {
        Box::new(reply::Reader::default())
    }

    fn read_error(&self, status: u16, _: &HeaderMap, body: &Value, _: &Provider) -> ReportedError {
        let message = body.get("message").and_then(Value::as_str).filter(|message| !message.is_empty());
        let lower = message.unwrap_or_default().to_ascii_lowercase();
        let (code, status) = match status {
            // What it calls a blocked input or output.
            498 => (Some("content_filter"), Some(400)),
            // Its word for a request that somebody has broken off: it was not the caller, who is still here.
            499 => (None, Some(503)),
            400 | 413 | 422 if lower.starts_with("too many tokens") => (Some("context_length_exceeded"), None),
            404 if lower.starts_with("model ") => (Some("model_not_found"), None),
            422 => (Some("invalid_request_error"), None),
            429 if lower.contains("month") => (Some("insufficient_quota"), None),
            429 => (Some("rate_limit_exceeded"), None),
            503 => (Some("overloaded_error"), None),
            _ => (None, None),
        };
        ReportedError {
            message: message.map(str::to_owned),
            code: code.map(str::to_owned),
            status,
            ..ReportedError::default()
        }
    }
}

#[cfg(test)]
mod tests;
