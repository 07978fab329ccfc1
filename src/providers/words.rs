//! What is said, for providers that take little else than text.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::error::Problem;
use crate::protocol::chat::{Part, PartBody, Source};

/// What is said where nothing is, but something has to be.
pub const FILLER: &str = ".";

/// A refusal of a part.
pub fn invalid(part: &Part, what: &str) -> Problem {
    let at = part.at.to_string();
    Problem::invalid(&at, format!("{at}: {what}"))
}

/// The words of a part; `None` if it has none, such as a call.
///
/// # Errors
/// A 400 if it is something to be looked at or listened to.
pub fn words(part: &Part) -> Result<Option<Cow<'_, str>>, Problem> {
    Ok(match &part.body {
        PartBody::Text { text, .. } | PartBody::Refusal(text) if !text.is_empty() => Some(Cow::Borrowed(text.as_str())),
        PartBody::Document { name, context, .. } => {
            let Some(text) = document(part)? else {
                return Err(invalid(part, "this model takes documents as text only; send the text of it."));
            };
            let head = [name.as_deref(), context.as_deref()];
            let all: Vec<&str> = head.into_iter().flatten().chain([text.as_ref()]).collect();
            Some(Cow::Owned(all.join("\n")))
        }
        PartBody::Image { .. } | PartBody::Audio { .. } | PartBody::Video { .. } => {
            return Err(invalid(part, "this model takes text only."));
        }
        _ => None,
    })
}

/// The text of a document; `None` if it is not text, or not here.
///
/// # Errors
/// A 400 if it says that it is text, and is not.
pub fn document(part: &Part) -> Result<Option<Cow<'_, str>>, Problem> {
    let PartBody::Document { source, .. } = &part.body else { return Ok(None) };
    Ok(match source {
        Source::Text { text, .. } => Some(Cow::Borrowed(text.as_str())),
        Source::Base64 { media_type, data } if media_type.starts_with("text/") || media_type == "application/json" => {
            let text = STANDARD.decode(data).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            Some(Cow::Owned(text.ok_or_else(|| invalid(part, "is not UTF-8 text in base64, as it says."))?))
        }
        _ => None,
    })
}

/// The words of the result of a tool.
///
/// # Errors
/// As [`words`].
pub fn result<'p>(parts: impl IntoIterator<Item = &'p Part>, is_error: bool) -> Result<String, Problem> {
    let texts: Vec<_> = parts.into_iter().map(words).collect::<Result<_, _>>()?;
    let texts: Vec<&str> = texts.iter().flatten().map(Cow::as_ref).collect();
    let text = texts.join("\n");
    Ok(if is_error { json!({"error": text}).to_string() } else { text })
}

/// The arguments of a call as the text of a JSON object.
///
/// # Errors
/// A 400 if they are none.
pub fn arguments(part: &Part, arguments: &str) -> Result<String, Problem> {
    if arguments.trim().is_empty() {
        return Ok("{}".to_owned());
    }
    match serde_json::from_str::<Value>(arguments) {
        Ok(Value::Object(_)) => Ok(arguments.to_owned()),
        _ => Err(invalid(part, "the arguments must be a JSON object.")),
    }
}
