//! Google's Gemini, as the Gemini API and Vertex AI serve it (<https://ai.google.dev/api/generate-content>). Both read
//! protocol buffers written as JSON: a member that no message declares is refused, wherever it stands.

mod contents;
mod error;
mod family;
mod reply;
mod request;
mod tools;

use http::HeaderMap;
use serde_json::Value;

use self::family::Family;
use super::counting;
use super::notes::Notes;
use super::outbound::{Outbound, Serves};
use super::side::{self, Side};
use super::{Api, AuthKind, ReportedError, Target, UpstreamRequest};
use crate::config::Provider;
use crate::error::Problem;
use crate::protocol::chat::ChatRequest;
use crate::protocol::frames::EventReader;

/// Who serves the models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// The Gemini API. The base URL ends in the version: `https://generativelanguage.googleapis.com/v1beta`.
    GeminiApi,
    /// Vertex AI. The base URL ends in the location:
    /// `https://aiplatform.googleapis.com/v1/projects/<project>/locations/global`. The credential is an access token.
    Vertex,
}

/// The dialect.
#[derive(Debug, Clone, Copy)]
pub struct Gemini {
    /// Who serves the models.
    pub host: Host,
}

/// What a request is written for.
#[derive(Debug, Clone, Copy)]
struct Wire {
    host: Host,
    family: Family,
}

impl Outbound for Gemini {
    fn serves(&self, api: Api, _: Target<'_>) -> Serves {
        let translated = api == Api::Embeddings || api.is_count();
        if translated { Serves::Translated } else { Serves::chat_translated(api) }
    }

    fn takes_own_pictures(&self, _: Target<'_>) -> bool {
        true
    }

    fn count(&self, request: UpstreamRequest, _: Target<'_>) -> Option<UpstreamRequest> {
        let model = request.path.trim_start_matches('/').strip_suffix(":generateContent")?.to_owned();
        let path = |_: &str| Some(format!("/{model}:countTokens"));
        match self.host {
            Host::Vertex => counting::of(request, path, counting::VERTEX, Value::Object),
            Host::GeminiApi => counting::of(request, path, counting::GEMINI, |mut body| {
                body.insert("model".to_owned(), model.clone().into());
                counting::under("generateContentRequest")(body)
            }),
        }
    }

    fn counted(&self, reply: &Value) -> Option<u64> {
        counting::number(reply, "totalTokens")
    }

    fn side(&self, api: Api, target: Target<'_>) -> Option<&'static dyn Side> {
        (api == Api::Embeddings).then(|| side::google_embeddings(self.host, target.upstream_model))
    }

    fn translate(&self, chat: &ChatRequest, target: Target<'_>, notes: &mut Notes) -> Result<UpstreamRequest, Problem> {
        let wire = Wire { host: self.host, family: Family::of(target.upstream_model) };
        let (body, headers) = request::write(chat, wire, target.structured_output, notes)?;
        let path = self.path(target.upstream_model, chat.stream);
        Ok(UpstreamRequest { headers, ..UpstreamRequest::post(path, body.to_string().into_bytes()) })
    }

    fn reader(&self, _: Target<'_>) -> Box<dyn EventReader> {
        Box::new(reply::Reader::default())
    }

    fn read_error(&self, _: u16, _: &HeaderMap, body: &Value, _: &Provider) -> ReportedError {
        error::read(body)
    }

    fn auth(&self, _: &Provider) -> AuthKind {
        match self.host {
            // Never as `?key=`: addresses are logged.
            Host::GeminiApi => AuthKind::Header { name: "x-goog-api-key" },
            Host::Vertex => AuthKind::Bearer,
        }
    }
}

impl Gemini {
    /// A model whose name is a path (`tunedModels/…`, `endpoints/…`, `publishers/…`) is found there.
    fn path(self, model: &str, stream: bool) -> String {
        let method = if stream { "streamGenerateContent?alt=sse" } else { "generateContent" };
        match self.host {
            _ if model.contains('/') => format!("/{model}:{method}"),
            Host::GeminiApi => format!("/models/{model}:{method}"),
            Host::Vertex => format!("/publishers/google/models/{model}:{method}"),
        }
    }
}

#[cfg(test)]
mod tests;
