//! Cohere's embeddings and rerank, version 2 of its API. The base URL ends before `/v2`.

use serde_json::{Map, Value, json};

use super::embeddings::{self, Asked};
use super::{Side, SideAsked};
use crate::error::Problem;
use crate::protocol::chat::ReplyFault;
use crate::protocol::usage::{Told, Usage};
use crate::providers::notes::Notes;
use crate::providers::{Target, UpstreamRequest};

/// Embeddings.
pub static EMBEDDINGS: &dyn Side = &Embeddings;

/// Rerank.
pub static RERANK: &dyn Side = &Rerank;

/// Texts in one request.
pub(super) const MOST: usize = 96;

/// Members of Cohere's own that callers may send.
pub(super) const EXTRAS: &[&str] = &["input_type", "truncate", "max_tokens"];

struct Embeddings;

/// The members that all of Cohere's hosts take.
pub(super) fn body(asked: &Asked<'_>, source: &Value) -> Result<Map<String, Value>, Problem> {
    let mut body = Map::new();
    body.insert("texts".to_owned(), json!(asked.texts));
    // It insists on one: texts that are to be found are what most embed.
    body.insert("input_type".to_owned(), asked.text_or("input_type", "search_document")?.into());
    if let Some(truncate) = asked.text("truncate")? {
        body.insert("truncate".to_owned(), truncate.into());
    }
    if let Some(most) = source.get("max_tokens").filter(|most| !most.is_null()) {
        body.insert("max_tokens".to_owned(), most.clone());
    }
    if let Some(dimensions) = asked.dimensions {
        body.insert("output_dimension".to_owned(), dimensions.into());
    }
    Ok(body)
}

/// The embeddings of a reply, by type or, as the older models have them, at once.
pub(super) fn vectors(body: &Value) -> Vec<&Value> {
    let found = body.get("embeddings").map(|it| it.get("float").unwrap_or(it));
    found.and_then(Value::as_array).map(|list| list.iter().collect()).unwrap_or_default()
}

impl Side for Embeddings {
    fn request(&self, source: &Value, target: Target<'_>, notes: &mut Notes) -> Result<UpstreamRequest, Problem> {
        let asked = Asked::read(source, MOST, EXTRAS, notes)?;
        let mut body = body(&asked, source)?;
        body.insert("model".to_owned(), target.upstream_model.into());
        body.insert("embedding_types".to_owned(), json!(["float"]));
        Ok(UpstreamRequest::post("/v2/embed", Value::Object(body).to_string().into_bytes()))
    }

    fn reply(&self, body: &Value, asked: &SideAsked<'_>) -> Result<(Value, Option<Told>), ReplyFault> {
        let usage = body.get("meta").and_then(Usage::from_cohere);
        embeddings::reply(&vectors(body), usage.map(Told::from), asked)
    }

    fn echo(&self, body: &Value) -> Map<String, Value> {
        embeddings::echo(body)
    }
}

struct Rerank;

/// Members of a request for a ranking.
const RANKING: &[&str] =
    &["model", "query", "documents", "top_n", "return_documents", "max_tokens_per_doc", "priority"];

impl Side for Rerank {
    fn request(&self, source: &Value, target: Target<'_>, notes: &mut Notes) -> Result<UpstreamRequest, Problem> {
        if let Some(members) = source.as_object() {
            notes.foreign(members, RANKING)?;
        }
        let mut documents = Vec::new();
        for (nth, document) in source.get("documents").and_then(Value::as_array).into_iter().flatten().enumerate() {
            let text = text(document).ok_or_else(|| {
                let place = format!("documents[{nth}]");
                Problem::invalid(&place, format!("{place}: must be a text, or an object with one under `text`."))
            })?;
            documents.push(text);
        }
        let mut body = json!({"model": target.upstream_model, "query": source.get("query"), "documents": documents});
        for name in ["top_n", "max_tokens_per_doc", "priority"] {
            if let (Some(value), Some(body)) = (source.get(name).filter(|it| !it.is_null()), body.as_object_mut()) {
                body.insert(name.to_owned(), value.clone());
            }
        }
        Ok(UpstreamRequest::post("/v2/rerank", body.to_string().into_bytes()))
    }

    fn reply(&self, body: &Value, asked: &SideAsked<'_>) -> Result<(Value, Option<Told>), ReplyFault> {
        let Some(ranked) = body.get("results").and_then(Value::as_array) else {
            return Err(ReplyFault::Malformed("it has no results".to_owned()));
        };
        let documents = asked.members.get("documents").and_then(Value::as_array);
        let mut results = Vec::with_capacity(ranked.len());
        for one in ranked {
            let index = one.get("index").and_then(Value::as_u64);
            let (Some(index), Some(score)) = (index, one.get("relevance_score").filter(|it| it.is_number())) else {
                return Err(ReplyFault::Malformed("a result in it has no index or no score".to_owned()));
            };
            let mut result = json!({"index": index, "relevance_score": score});
            let document = documents.and_then(|list| list.get(usize::try_from(index).ok()?)).and_then(text);
            if let (Some(text), Some(result)) = (document, result.as_object_mut()) {
                result.insert("document".to_owned(), json!({"text": text}));
            }
            results.push(result);
        }
        let id = body.get("id").and_then(Value::as_str).unwrap_or(asked.id);
        let mut reply = json!({"id": id, "model": asked.model, "results": results});
        if let (Some(meta), Some(reply)) = (body.get("meta"), reply.as_object_mut()) {
            reply.insert("meta".to_owned(), meta.clone());
        }
        Ok((reply, body.get("meta").and_then(Usage::from_cohere).map(Told::from)))
    }

    fn echo(&self, body: &Value) -> Map<String, Value> {
        let wanted = body.get("return_documents").is_some_and(|it| it == true);
        let documents = body.get("documents").filter(|_| wanted).cloned();
        documents.map(|documents| ("documents".to_owned(), documents)).into_iter().collect()
    }
}

fn text(document: &Value) -> Option<&str> {
    document.as_str().or_else(|| document.get("text")?.as_str())
}
