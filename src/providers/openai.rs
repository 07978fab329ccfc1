//! OpenAI Chat Completions and the many providers that speak it.
//!
//! A request from a caller of the same dialect is edited in its bytes, never parsed and written anew. Replies are
//! decoded only for providers that are set to `normalize`, so that callers see strict OpenAI chunks.

mod azure;
mod breakpoints;
mod error;
mod reply;
pub mod request;
pub mod responses_reply;
pub mod responses_request;
pub mod stored;
mod think;

use http::HeaderMap;
use serde_json::{Value, json};

use super::auth::AuthKind;
use super::counting;
use super::families::{takes_cache_breakpoints, traits};
use super::notes::Notes;
use super::outbound::{Outbound, Serves};
use super::{Api, ReportedError, Source, Target, UpstreamRequest, json_edit, quirks};
use crate::config::{Preset, Provider, StreamUsage, Wire};
use crate::error::Problem;
use crate::protocol::chat::ChatRequest;
use crate::protocol::frames::EventReader;
use crate::protocol::json_scan::{Edit, Members, ScanError, ScanLimits, ValueKind, scan_object, splice};

/// The path of Chat Completions below a base URL that ends in `/v1`.
pub const CHAT_PATH: &str = "/chat/completions";

/// The dialect.
#[derive(Debug)]
pub struct OpenAi;

impl Outbound for OpenAi {
    fn serves(&self, api: Api, target: Target<'_>) -> Serves {
        let wire = match api {
            Api::ChatCompletions => Wire::Chat,
            Api::Responses => Wire::Responses,
            Api::Completions => Wire::Completions,
            Api::InputTokens if target.provider.wires().contains(&Wire::Responses) => return Serves::Natively,
            Api::CountTokens if speaks_responses(target) => return Serves::Translated,
            api if api.is_count() => return Serves::No,
            api if api.is_side() && target.provider.row().has(api.upstream_path()) => return Serves::Natively,
            api if api.is_side() => return Serves::No,
            api => return Serves::chat_translated(api),
        };
        if target.provider.wires().contains(&wire) { Serves::Natively } else { Serves::Translated }
    }

    fn takes_custom_tools(&self, target: Target<'_>) -> bool {
        matches!(target.provider.preset, None | Some(Preset::OpenAi | Preset::Azure))
    }

    fn faithful(&self, api: Api, source: &Source<'_>, target: Target<'_>) -> Result<UpstreamRequest, Problem> {
        let ask_for_usage = source.stream && target.provider.stream_usage() == StreamUsage::OnRequest;
        if api != Api::ChatCompletions {
            let mark = source.mark.filter(|_| target.provider.stored_responses);
            if api.of_requests() == Api::Responses {
                responses_request::refuse_state(source, mark.is_some())?;
            }
            let ask_for_usage = ask_for_usage && api == Api::Completions;
            let mut edits = faithful_edits(source.body, source.members, target.upstream_model, ask_for_usage)?;
            if let Some(mark) = mark.filter(|_| api == Api::Responses) {
                edits.extend(stored::marked(source.body, source.members, mark)?);
            }
            return Ok(UpstreamRequest::post(azure::path(target, api.upstream_path()), splice(source.body, edits)));
        }
        let body = faithful_body(source.body, source.members, target.upstream_model, ask_for_usage)?;
        let mut notes = Notes::new(api, target.strict_params);
        let body = suited(body, source.stream, false, target, &mut notes)?;
        let request = UpstreamRequest::post(azure::path(target, CHAT_PATH), body);
        Ok(UpstreamRequest { dropped_params: notes.into_dropped(), ..request })
    }

    fn translate(&self, chat: &ChatRequest, target: Target<'_>, notes: &mut Notes) -> Result<UpstreamRequest, Problem> {
        if speaks_responses(target) {
            let request = responses_request::request(chat, target, notes)?;
            return Ok(UpstreamRequest { path: azure::path(target, &request.path), ..request });
        }
        let row = target.provider.row();
        let ask_for_usage = target.provider.stream_usage() == StreamUsage::OnRequest;
        // OpenAI's models that reason know the newer name alone, most other providers only the older one.
        // Deployments on Azure have names of their own.
        let is_at_openai = matches!(target.provider.preset, Some(Preset::OpenAi | Preset::Azure));
        let is_openais = is_at_openai || request::is_openais(target.upstream_model);
        let newer = is_openais && traits(target.upstream_model).reasons;
        let form = request::ChatForm {
            ask_for_usage,
            max_tokens: row.max_tokens.unwrap_or(if newer { "max_completion_tokens" } else { "max_tokens" }),
            lineage: row.lineage,
            reasoning_back: row.reasoning_back,
            open_sampling: !is_openais,
            breakpoints: is_openais && takes_cache_breakpoints(target.upstream_model),
            row,
        };
        let body = request::body(chat, target.upstream_model, &form, notes)?;
        let body = suited(body.to_string().into_bytes(), chat.stream, true, target, notes)?;
        Ok(UpstreamRequest::post(azure::path(target, CHAT_PATH), body))
    }

    fn count(&self, request: UpstreamRequest, target: Target<'_>) -> Option<UpstreamRequest> {
        let path = |_: &str| Some(azure::path(target, Api::InputTokens.upstream_path()));
        counting::of(request, path, counting::RESPONSES, Value::Object)
    }

    fn counted(&self, reply: &Value) -> Option<u64> {
        counting::number(reply, "input_tokens")
    }

    fn reader(&self, target: Target<'_>) -> Box<dyn EventReader> {
        if speaks_responses(target) {
            return Box::new(responses_reply::Reader::default());
        }
        Box::new(reply::Reader::new(target.provider.row()))
    }

    fn read_error(&self, _: u16, _: &HeaderMap, body: &Value, provider: &Provider) -> ReportedError {
        error::read(body, provider.row())
    }

    fn auth(&self, provider: &Provider) -> AuthKind {
        provider.row().auth
    }
}

/// A request as the provider wants it, if that is otherwise than OpenAI does.
fn suited(
    body: Vec<u8>,
    stream: bool,
    is_translated: bool,
    target: Target<'_>,
    notes: &mut Notes,
) -> Result<Vec<u8>, Problem> {
    let row = target.provider.row();
    if !row.has_quirks() {
        return Ok(body);
    }
    let members = json_edit::object(&body)?;
    let mut editor = json_edit::Editor::new(&members);
    quirks::apply(quirks::Asked { row, model: target.upstream_model, stream, is_translated }, &mut editor, notes)?;
    Ok(editor.finish())
}

/// Whether what is not passed on as it is goes out as a request of the Responses API.
fn speaks_responses(target: Target<'_>) -> bool {
    target.provider.wires().iter().find(|wire| **wire != Wire::Completions) == Some(&Wire::Responses)
}

/// The caller's request with only what must change changed: the model's name, and `stream_options.include_usage` if
/// the gateway has to ask for the usage itself. Every other byte stays, unknown fields included.
///
/// # Errors
/// A 400 if `stream_options` is not an object.
pub fn faithful_body(body: &[u8], members: &Members<'_>, model: &str, ask_for_usage: bool) -> Result<Vec<u8>, Problem> {
    Ok(splice(body, faithful_edits(body, members, model, ask_for_usage)?))
}

fn faithful_edits(body: &[u8], members: &Members<'_>, model: &str, ask_for_usage: bool) -> Result<Vec<Edit>, Problem> {
    let mut edits = Vec::with_capacity(2);
    let name = json!(model);
    edits.push(match members.unique("model").map_err(scan_problem)? {
        Some(member) => Edit { range: member.value.clone(), with: name.to_string().into_bytes() },
        // Where the caller may leave it to the gateway.
        None => Edit { range: members.open..members.open, with: format!(r#""model":{name},"#).into_bytes() },
    });
    if ask_for_usage {
        edits.push(usage_edit(body, members)?);
    }
    Ok(edits)
}

fn usage_edit(body: &[u8], members: &Members<'_>) -> Result<Edit, Problem> {
    let Some(options) = members.unique("stream_options").map_err(scan_problem)? else {
        let with = br#""stream_options":{"include_usage":true},"#.to_vec();
        return Ok(Edit { range: members.open..members.open, with });
    };
    match options.kind {
        ValueKind::Null => Ok(Edit { range: options.value.clone(), with: br#"{"include_usage":true}"#.to_vec() }),
        ValueKind::Object => {
            let text = body.get(options.value.clone()).unwrap_or_default();
            let inner = scan_object(text, ScanLimits::default()).map_err(scan_problem)?;
            let shift = |at: usize| at.saturating_add(options.value.start);
            Ok(match inner.unique("include_usage").map_err(scan_problem)? {
                Some(asked) => Edit { range: shift(asked.value.start)..shift(asked.value.end), with: b"true".to_vec() },
                None => Edit {
                    range: shift(inner.open)..shift(inner.open),
                    with: if inner.is_empty() {
                        br#""include_usage":true"#.to_vec()
                    } else {
                        br#""include_usage":true,"#.to_vec()
                    },
                },
            })
        }
        other => {
            Err(Problem::invalid("stream_options", format!("stream_options must be an object, not {}.", other.name())))
        }
    }
}

/// A scan error as a problem.
pub fn scan_problem(error: ScanError) -> Problem {
    let mut problem = Problem::invalid(error.param().unwrap_or_default(), format!("{error}."));
    if let ScanError::Syntax { .. } | ScanError::Utf8 { .. } | ScanError::NotAnObject { .. } = error {
        problem.code = "invalid_json".to_owned();
    }
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(body: &str, ask: bool) -> String {
        let members = scan_object(body.as_bytes(), ScanLimits::default()).unwrap();
        String::from_utf8(faithful_body(body.as_bytes(), &members, "up", ask).unwrap()).unwrap()
    }

    #[test]
    fn only_the_model_and_the_usage_option_change() {
        assert_eq!(
            edited(r#"{ "model" : "a" ,"x":1.50, "é":[ ] }"#, false),
            r#"{ "model" : "up" ,"x":1.50, "é":[ ] }"#
        );
        assert_eq!(
            edited(r#"{"model":"a","stream":true}"#, true),
            r#"{"stream_options":{"include_usage":true},"model":"up","stream":true}"#
        );
        assert_eq!(
            edited(r#"{"stream_options":{ "x":1},"model":"a"}"#, true),
            r#"{"stream_options":{"include_usage":true, "x":1},"model":"up"}"#
        );
        assert_eq!(
            edited(r#"{"stream_options":{},"model":"a"}"#, true),
            r#"{"stream_options":{"include_usage":true},"model":"up"}"#
        );
        assert_eq!(
            edited(r#"{"model":"a","stream_options":{"include_usage": false}}"#, true),
            r#"{"model":"up","stream_options":{"include_usage": true}}"#
        );
        assert_eq!(
            edited(r#"{"model":"a","stream_options":null}"#, true),
            r#"{"model":"up","stream_options":{"include_usage":true}}"#
        );
    }

    #[test]
    fn stream_options_of_another_type_are_refused_by_name() {
        let body = br#"{"model":"a","stream_options":[]}"#;
        let members = scan_object(body, ScanLimits::default()).unwrap();
        assert_eq!(faithful_body(body, &members, "up", true).unwrap_err().param.as_deref(), Some("stream_options"));
    }
}
