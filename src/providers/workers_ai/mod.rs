//! Workers AI by the Worker's own binding `AI`: what would be a path is the model, and no credential is needed. The
//! body is the binding's input (<https://developers.cloudflare.com/workers-ai/configuration/bindings/>).

mod reply;
mod request;

use http::HeaderMap;
use serde_json::Value;

use super::notes::Notes;
use super::outbound::{Outbound, Serves};
use super::{Api, ReportedError, Target, UpstreamRequest};
use crate::config::Provider;
use crate::error::Problem;
use crate::protocol::chat::ChatRequest;
use crate::protocol::frames::EventReader;

/// The dialect.
#[derive(Debug)]
pub struct WorkersAi;

impl Outbound for WorkersAi {
    fn serves(&self, api: Api, _: Target<'_>) -> Serves {
        Serves::chat_translated(api)
    }

    fn translate(&self, chat: &ChatRequest, target: Target<'_>, notes: &mut Notes) -> Result<UpstreamRequest, Problem> {
        let body = request::write(chat, target, notes)?;
        Ok(UpstreamRequest::post("/", body.to_string().into_bytes()))
    }

    fn reader(&self, target: Target<'_>) -> Box<dyn EventReader> {
        Box::new(reply::Reader::new(target))
    }

    fn read_error(&self, _: u16, _: &HeaderMap, body: &Value, _: &Provider) -> ReportedError {
        reply::error(body)
    }
}

#[cfg(test)]
mod tests;
