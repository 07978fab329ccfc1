//! Baidu's wenxinworkshop, the older API of Qianfan (<https://cloud.baidu.com/doc/WENXINWORKSHOP>). The model is the
//! last part of the path, the base URL ends before `/rpc`: `https://aip.baidubce.com`. Errors come with status 200.

mod error;
mod messages;
mod reply;
mod request;

use http::HeaderMap;
use serde_json::Value;

use super::notes::Notes;
use super::outbound::{Outbound, Serves};
use super::{Api, AuthKind, ReportedError, Target, UpstreamRequest};
use crate::config::Provider;
use crate::error::Problem;
use crate::protocol::chat::ChatRequest;
use crate::protocol::frames::EventReader;

/// The dialect.
#[derive(Debug)]
pub struct Wenxinworkshop;

impl Outbound for Wenxinworkshop {
    fn serves(&self, api: Api, _: Target<'_>) -> Serves {
        Serves::chat_translated(api)
    }

    fn translate(&self, chat: &ChatRequest, target: Target<'_>, notes: &mut Notes) -> Result<UpstreamRequest, Problem> {
        let body = request::write(chat, target, notes)?.to_string().into_bytes();
        Ok(UpstreamRequest::post(request::path(target.upstream_model), body))
    }

    fn reader(&self, target: Target<'_>) -> Box<dyn EventReader> {
        Box::new(reply::Reader::new(target.upstream_model))
    }

    fn read_error(&self, _: u16, _: &HeaderMap, body: &Value, _: &Provider) -> ReportedError {
        error::read(body)
    }

    /// Told with status 200, as all its errors.
    fn refuses_token(&self, status: u16, code: Option<&str>) -> bool {
        status == 401 || code == Some(error::TOKEN_REFUSED)
    }

    /// The access token, and nothing else, stands in the query.
    fn auth(&self, _: &Provider) -> AuthKind {
        AuthKind::Query { name: "access_token" }
    }
}

#[cfg(test)]
mod tests;
