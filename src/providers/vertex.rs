//! Google's Vertex AI: Gemini in its own dialect, and Claude in Anthropic's behind Google's paths
//! (<https://docs.anthropic.com/en/api/claude-on-vertex-ai>).

use http::HeaderMap;
use serde_json::Value;

use super::anthropic::{self, Anthropic};
use super::gemini::{Gemini, Host};
use super::notes::Notes;
use super::outbound::{Outbound, Serves};
use super::{Api, ReportedError, Source, Target, UpstreamRequest};
use crate::config::Provider;
use crate::error::Problem;
use crate::protocol::chat::ChatRequest;
use crate::protocol::frames::EventReader;

/// What Claude's requests say here in place of a header.
const CLAUDE_VERSION: &str = "vertex-2023-10-16";

/// What they do not have here: the model stands in the path, and nobody caches the whole of them by one mark.
const CLAUDE_LACKS: &[&str] = &["model", "cache_control", "anthropic_version"];

const GEMINI: Gemini = Gemini { host: Host::Vertex };

/// The dialect.
#[derive(Debug)]
pub struct Vertex;

impl Outbound for Vertex {
    fn serves(&self, api: Api, target: Target<'_>) -> Serves {
        of(target).serves(api, target)
    }

    fn faithful(&self, api: Api, source: &Source<'_>, target: Target<'_>) -> Result<UpstreamRequest, Problem> {
        let mut notes = Notes::new(api, target.strict_params);
        if source.members.position("cache_control").is_ok_and(|found| found.is_some()) {
            notes.drop_named("cache_control")?;
        }
        let version = format!("\"anthropic_version\":\"{CLAUDE_VERSION}\"");
        let body = source.members.without(CLAUDE_LACKS, &version);
        let request = UpstreamRequest::post(claude_path(target.upstream_model, source.stream), body);
        Ok(UpstreamRequest { dropped_params: notes.into_dropped(), ..request })
    }

    fn takes_own_pictures(&self, target: Target<'_>) -> bool {
        of(target).takes_own_pictures(target)
    }

    fn translate(&self, chat: &ChatRequest, target: Target<'_>, notes: &mut Notes) -> Result<UpstreamRequest, Problem> {
        if !is_claude(target.upstream_model) {
            return GEMINI.translate(chat, target, notes);
        }
        let mut body = anthropic::body(chat, target, notes)?;
        if let Some(members) = body.as_object_mut() {
            members.retain(|name, _| !CLAUDE_LACKS.contains(&name.as_str()));
            members.insert("anthropic_version".to_owned(), CLAUDE_VERSION.into());
        }
        let path = claude_path(target.upstream_model, chat.stream);
        Ok(UpstreamRequest::post(path, body.to_string().into_bytes()))
    }

    fn reader(&self, target: Target<'_>) -> Box<dyn EventReader> {
        of(target).reader(target)
    }

    /// Google refuses credentials and quotas, Anthropic the rest.
    fn read_error(&self, status: u16, headers: &HeaderMap, body: &Value, provider: &Provider) -> ReportedError {
        let theirs: &dyn Outbound = if anthropic::is_error(body) { &Anthropic } else { &GEMINI };
        theirs.read_error(status, headers, body, provider)
    }
}

/// Whose dialect a model speaks.
fn of(target: Target<'_>) -> &'static dyn Outbound {
    if is_claude(target.upstream_model) { &Anthropic } else { &GEMINI }
}

/// Whether a model is one of Anthropic's: by its name, or by its publisher where the name is a path.
fn is_claude(model: &str) -> bool {
    model.starts_with("claude") || model.starts_with("publishers/anthropic/")
}

fn claude_path(model: &str, stream: bool) -> String {
    let method = if stream { "streamRawPredict" } else { "rawPredict" };
    match model.contains('/') {
        true => format!("/{model}:{method}"),
        false => format!("/publishers/anthropic/models/{model}:{method}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StructuredOutput;
    use crate::protocol::chat::{List, Message, Part, PartBody, Place, Role};
    use crate::protocol::json_scan::{ScanLimits, scan_object};
    use serde_json::json;

    fn with_target<T>(model: &str, test: impl FnOnce(Target<'_>) -> T) -> T {
        let base = "https://aiplatform.googleapis.com/v1/projects/p/locations/global";
        let provider = serde_json::from_value(json!({"dialect": "vertex", "base_url": base})).unwrap();
        test(Target {
            provider: &provider,
            upstream_model: model,
            max_output_tokens: 100,
            structured_output: StructuredOutput::Native,
            strict_params: false,
        })
    }

    fn chat(stream: bool) -> ChatRequest {
        let mut chat = ChatRequest::new(Api::ChatCompletions, "m".to_owned());
        let at = Place::item(List::Messages, 0);
        let text = Part { body: PartBody::Text { text: "Hi".to_owned(), signature: None }, cache: None, at };
        chat.messages.push(Message { role: Role::User, parts: vec![text], name: None, at });
        chat.stream = stream;
        chat
    }

    #[test]
    fn claude_is_asked_in_its_own_dialect_behind_googles_paths() {
        let asked = |model: &str, stream| {
            let mut notes = Notes::new(Api::ChatCompletions, false);
            let request = with_target(model, |target| Vertex.translate(&chat(stream), target, &mut notes)).unwrap();
            (request.path, serde_json::from_slice::<Value>(&request.body).unwrap())
        };
        let (path, body) = asked("claude-sonnet-4-5@20250929", false);
        assert_eq!(path, "/publishers/anthropic/models/claude-sonnet-4-5@20250929:rawPredict");
        assert_eq!(
            (&body["anthropic_version"], body.get("model"), &body["max_tokens"]),
            (&json!("vertex-2023-10-16"), None, &json!(100))
        );
        let (path, body) = asked("publishers/anthropic/models/claude-opus-4-8", true);
        assert_eq!(path, "/publishers/anthropic/models/claude-opus-4-8:streamRawPredict");
        assert_eq!(body["stream"], true);
        let (path, body) = asked("gemini-2.5-pro", false);
        assert_eq!(path, "/publishers/google/models/gemini-2.5-pro:generateContent");
        assert!(body.get("contents").is_some() && body.get("anthropic_version").is_none());
    }

    #[test]
    fn messages_to_claude_pass_but_for_what_stands_elsewhere() {
        let text = br#"{"model":"m","cache_control":{"type":"ephemeral"}, "max_tokens": 5,"stream":true,"x":[1.0]}"#;
        let members = scan_object(text, ScanLimits::default()).unwrap();
        let source = Source { body: text, members: &members, stream: true, mark: None };
        let request = with_target("claude-opus-4-8", |target| {
            assert_eq!(Vertex.serves(Api::Messages, target), Serves::Natively);
            assert_eq!(Vertex.serves(Api::ChatCompletions, target), Serves::Translated);
            Vertex.faithful(Api::Messages, &source, target).unwrap()
        });
        let body = r#"{"anthropic_version":"vertex-2023-10-16","max_tokens": 5,"stream":true,"x":[1.0]}"#;
        assert_eq!(String::from_utf8(request.body).unwrap(), body);
        assert_eq!(request.path, "/publishers/anthropic/models/claude-opus-4-8:streamRawPredict");
        assert_eq!(request.dropped_params, ["cache_control"], "marks within the messages are all that it knows");
        with_target("gemini-3-flash", |target| assert_eq!(Vertex.serves(Api::Messages, target), Serves::Translated));
    }

    #[test]
    fn errors_are_read_whoever_tells_them() {
        let read =
            |body: Value| with_target("claude", |it| Vertex.read_error(400, &HeaderMap::new(), &body, it.provider));
        let googles = read(json!([{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Slow down"}}]));
        assert_eq!(googles.code.as_deref(), Some("rate_limit_exceeded"));
        let theirs = read(json!({"type": "error", "error": {"type": "invalid_request_error", "message": "No"}}));
        assert_eq!((theirs.code.as_deref(), theirs.message.as_deref()), (Some("invalid_request_error"), Some("No")));
    }
}
