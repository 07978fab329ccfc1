//! Pictures, documents, sound and films as content blocks.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::error::Problem;
use crate::protocol::chat::{Part, PartBody, Place, Source};

/// A document's name is that long at most, in characters.
const MAX_NAME: usize = 200;

/// The formats of documents by their media types.
const DOCUMENTS: &[(&str, &str)] = &[
    ("application/pdf", "pdf"),
    ("text/csv", "csv"),
    ("text/html", "html"),
    ("text/markdown", "md"),
    ("application/json", "txt"),
    ("application/msword", "doc"),
    ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", "docx"),
    ("application/vnd.ms-excel", "xls"),
    ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "xlsx"),
];

const DOCUMENT_FORMATS: &[&str] = &["pdf", "csv", "doc", "docx", "xls", "xlsx", "html", "txt", "md"];

const IMAGE_FORMATS: &[&str] = &["png", "jpeg", "gif", "webp"];

/// The formats of films by what their media types or file names call them.
const VIDEOS: &[(&str, &str)] = &[
    ("quicktime", "mov"),
    ("mov", "mov"),
    ("x-matroska", "mkv"),
    ("mkv", "mkv"),
    ("mp4", "mp4"),
    ("webm", "webm"),
    ("x-flv", "flv"),
    ("flv", "flv"),
    ("mpeg", "mpeg"),
    ("mpg", "mpg"),
    ("x-ms-wmv", "wmv"),
    ("wmv", "wmv"),
    ("3gpp", "three_gp"),
];

/// The names of a request's documents. No two are alike: the API refuses that.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeSet<String>);

impl Names {
    /// A name in the characters that the API takes: letters, digits, single spaces, hyphens, and round and square
    /// brackets. What a file name ends with says nothing that the format does not.
    fn take(&mut self, name: Option<&str>) -> String {
        let name = name.unwrap_or_default();
        let stem = match name.rsplit_once('.') {
            Some((stem, ending)) if ending.len() <= 5 && ending.chars().all(|c| c.is_ascii_alphanumeric()) => stem,
            _ => name,
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-()[]".contains(c);
        let words: String = stem.chars().map(|c| if allowed(c) { c } else { ' ' }).collect();
        let words: Vec<&str> = words.split_whitespace().collect();
        let plain = if words.is_empty() { "Document".to_owned() } else { words.join(" ") };
        let mut name = cut(&plain, MAX_NAME);
        let mut nth = 1_u32;
        while !self.0.insert(name.clone()) {
            nth = nth.saturating_add(1);
            let suffix = format!(" {nth}");
            name = format!("{}{suffix}", cut(&plain, MAX_NAME.saturating_sub(suffix.len())));
        }
        name
    }
}

/// What is left of it has no white space at its end, lest a suffix made two of it.
fn cut(name: &str, most: usize) -> String {
    let kept: String = name.chars().take(most).collect();
    kept.trim_end().to_owned()
}

/// The content block of a picture, document, sound or film; `None` if the part is none of them.
///
/// # Errors
/// A 400 naming the part if the API cannot take it.
pub(super) fn block(part: &Part, names: &mut Names) -> Result<Option<Value>, Problem> {
    let at = part.at;
    Ok(Some(match &part.body {
        PartBody::Image { source, .. } => {
            let format = match ending(source) {
                "jpg" => "jpeg",
                ending => ending,
            };
            if !IMAGE_FORMATS.contains(&format) {
                return Err(refused(at, "pictures must be PNG, JPEG, GIF or WebP; say which in the media type"));
            }
            json!({"image": {"format": format, "source": bytes(source, at)?}})
        }
        PartBody::Document { source, name, context, cite } => {
            let format = document_format(source, name.as_deref())
                .ok_or_else(|| refused(at, "documents must be PDF, CSV, Word, Excel, HTML, Markdown or plain text"))?;
            let mut document =
                json!({"format": format, "name": names.take(name.as_deref()), "source": bytes(source, at)?});
            if let Some(context) = context {
                insert(&mut document, "context", context.as_str().into());
            }
            if *cite {
                insert(&mut document, "citations", json!({"enabled": true}));
            }
            json!({"document": document})
        }
        PartBody::Audio { source, format } => json!({"audio": {"format": format, "source": bytes(source, at)?}}),
        PartBody::Video { source } => {
            let ending = ending(source);
            let known = VIDEOS.iter().find(|(name, _)| *name == ending);
            let (_, format) =
                known.ok_or_else(|| refused(at, "films must be MP4, MOV, MKV, WebM, FLV, MPEG, WMV or 3GP"))?;
            json!({"video": {"format": format, "source": bytes(source, at)?}})
        }
        _ => return Ok(None),
    }))
}

pub(super) fn insert(object: &mut Value, name: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(name.to_owned(), value);
    }
}

fn refused(at: Place, advice: &str) -> Problem {
    Problem::invalid(&at.to_string(), format!("{at}: {advice}."))
}

/// Where the bytes are: here, or in AWS's own storage; the service fetches nothing else.
fn bytes(source: &Source, at: Place) -> Result<Value, Problem> {
    match source {
        Source::Base64 { data, .. } if data.is_empty() => Err(refused(at, "is empty")),
        Source::Base64 { data, .. } => Ok(json!({"bytes": data})),
        Source::Text { text, .. } if text.is_empty() => Err(refused(at, "is empty")),
        Source::Text { text, .. } => Ok(json!({"bytes": STANDARD.encode(text)})),
        Source::Url(uri) if uri.starts_with("s3://") => Ok(json!({"s3Location": {"uri": uri}})),
        Source::Url(_) => {
            Err(refused(at, "the provider of this model fetches nothing from an address; give it inline (base64)"))
        }
        Source::File { .. } => Err(refused(
            at,
            "files that were uploaded elsewhere are not at this model's provider; give it inline (base64)",
        )),
    }
}

/// What its media type or its address ends with.
fn ending(source: &Source) -> &str {
    match source {
        Source::Base64 { media_type, .. } | Source::Text { media_type, .. } => {
            media_type.rsplit('/').next().unwrap_or_default()
        }
        Source::Url(name) => name.rsplit('.').next().unwrap_or_default(),
        Source::File { .. } => "",
    }
}

fn document_format(source: &Source, name: Option<&str>) -> Option<&'static str> {
    let media_type = match source {
        Source::Base64 { media_type, .. } | Source::Text { media_type, .. } => media_type.as_str(),
        Source::Url(_) | Source::File { .. } => "",
    };
    if let Some((_, format)) = DOCUMENTS.iter().find(|(known, _)| *known == media_type) {
        return Some(format);
    }
    let by_name = [name.and_then(|name| name.rsplit('.').next()), Some(ending(source))];
    let by_name = by_name
        .into_iter()
        .flatten()
        .find_map(|ending| DOCUMENT_FORMATS.iter().find(|format| format.eq_ignore_ascii_case(ending)));
    by_name.copied().or_else(|| media_type.starts_with("text/").then_some("txt"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn names_of_documents_are_in_the_apis_characters_and_differ(given in prop::collection::vec(".{0,250}", 1..6)) {
            let mut names = Names::default();
            let mut taken: Vec<String> = given.iter().map(|name| names.take(Some(name))).collect();
            taken.extend(given.iter().map(|name| names.take(Some(name))));
            for name in &taken {
                prop_assert!((1..=MAX_NAME).contains(&name.len()) && name.trim() == name && !name.contains("  "), "{name}");
                prop_assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || " -()[]".contains(c)), "{name}");
            }
            let different: BTreeSet<_> = taken.iter().collect();
            prop_assert_eq!(different.len(), taken.len());
        }
    }

    #[test]
    fn a_name_stays_readable() {
        let mut names = Names::default();
        assert_eq!(names.take(Some("Q3 report_(final).pdf")), "Q3 report (final)");
        assert_eq!(names.take(Some("Q3 report_(final).txt")), "Q3 report (final) 2");
        assert_eq!(names.take(None), "Document");
        assert_eq!(names.take(Some("答.pdf")), "Document 2");
    }
}
