//! Embeddings of the models that Bedrock hosts, by `invoke`: each family has a form of its own.

use serde_json::{Map, Value, json};

use super::embeddings::{self, Asked};
use super::{Side, SideAsked, cohere};
use crate::error::Problem;
use crate::protocol::chat::ReplyFault;
use crate::protocol::usage::{Told, Usage};
use crate::providers::notes::Notes;
use crate::providers::{Target, UpstreamRequest, bedrock};

/// Embeddings of a model; `None` for one that is not known to make any.
pub fn embeddings(upstream_model: &str) -> Option<&'static dyn Side> {
    let has = |part: &str| upstream_model.contains(part);
    match () {
        () if has("titan-embed") => Some(&Form::Titan),
        () if has("cohere.embed") => Some(&Form::Cohere),
        () if has("nova") && has("embed") => Some(&Form::Nova),
        () => None,
    }
}

#[derive(Clone, Copy)]
enum Form {
    Titan,
    Cohere,
    Nova,
}

impl Side for Form {
    fn request(&self, source: &Value, target: Target<'_>, notes: &mut Notes) -> Result<UpstreamRequest, Problem> {
        let body = match self {
            Self::Titan => {
                let asked = Asked::read(source, 1, &["normalize"], notes)?;
                let mut body = Map::new();
                body.insert("inputText".to_owned(), json!(asked.texts.first()));
                body.extend(asked.dimensions.map(|dimensions| ("dimensions".to_owned(), dimensions.into())));
                body.extend(source.get("normalize").map(|normalize| ("normalize".to_owned(), normalize.clone())));
                Value::Object(body)
            }
            Self::Cohere => {
                let asked = Asked::read(source, cohere::MOST, cohere::EXTRAS, notes)?;
                Value::Object(cohere::body(&asked, source)?)
            }
            Self::Nova => {
                let asked = Asked::read(source, 1, &["embedding_purpose", "truncate"], notes)?;
                let truncation = asked.text_or("truncate", "NONE")?;
                let mut single = json!({
                    "embeddingPurpose": asked.text_or("embedding_purpose", "GENERIC_INDEX")?,
                    "text": {"value": asked.texts.first(), "truncationMode": truncation},
                });
                if let (Some(dimensions), Some(single)) = (asked.dimensions, single.as_object_mut()) {
                    single.insert("embeddingDimension".to_owned(), dimensions.into());
                }
                json!({"taskType": "SINGLE_EMBEDDING", "singleEmbeddingParams": single})
            }
        };
        let path = bedrock::model_path(target.upstream_model, "invoke");
        Ok(UpstreamRequest::post(path, body.to_string().into_bytes()))
    }

    fn reply(&self, body: &Value, asked: &SideAsked<'_>) -> Result<(Value, Option<Told>), ReplyFault> {
        let vectors = match self {
            Self::Titan => body.get("embedding").into_iter().collect(),
            Self::Cohere => cohere::vectors(body),
            Self::Nova => body.pointer("/embeddings/0/embedding").into_iter().collect(),
        };
        let tokens = body.get("inputTextTokenCount").and_then(Value::as_u64);
        let told = tokens.map(|input| Told::from(Usage { input, ..Usage::default() }));
        embeddings::reply(&vectors, told, asked)
    }

    fn echo(&self, body: &Value) -> Map<String, Value> {
        embeddings::echo(body)
    }
}
