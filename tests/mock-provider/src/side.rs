//! The endpoints beside the conversation that take and give JSON: embeddings, moderations, rerank. Pictures and sound
//! are in files of their own.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

use crate::answer::fnv;
use crate::audio::{Hearing, Speech};
use crate::directives::{self, Directives};
use crate::endpoint::Endpoint;
use crate::http::Request;
use crate::images::Images;
use crate::journal::Route;
use crate::openai::{check_bool, check_integer, invalid_value, missing, wrong_type};
use crate::reply::{ApiError, Reply, put};
use crate::server::App;

/// Most inputs of one embeddings request.
const MAX_INPUTS: usize = 2048;
/// Most tokens of one input.
const MAX_INPUT_TOKENS: usize = 8192;
/// Most documents of one rerank request.
const MAX_DOCUMENTS: usize = 1000;

/// What moderation looks for.
const CATEGORIES: [&str; 13] = [
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
];

/// The endpoint that a path names.
pub fn find(path: &str) -> Option<Box<dyn Endpoint>> {
    let ends = |end: &str| path.ends_with(end);
    Some(match path {
        _ if ends("/embeddings") => Box::new(Embeddings),
        _ if ends("/moderations") => Box::new(Moderations),
        _ if ends("/rerank") => Box::new(Rerank),
        _ if ends("/images/generations") => Box::new(Images::Generations),
        _ if ends("/images/edits") => Box::new(Images::Edits),
        _ if ends("/audio/speech") => Box::new(Speech),
        _ if ends("/audio/transcriptions") => Box::new(Hearing::Transcription),
        _ if ends("/audio/translations") => Box::new(Hearing::Translation),
        _ => return None,
    })
}

/// The fields of a body that is an object.
pub fn object(body: &Value) -> Result<&Map<String, Value>, ApiError> {
    body.as_object().ok_or_else(|| ApiError::invalid("Invalid type for request body: expected an object."))
}

/// A field that must be there and be a text.
pub fn demand<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<&'a str, ApiError> {
    match fields.get(name) {
        None | Some(Value::Null) => Err(missing(name)),
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(wrong_type(name, "a string", other)),
    }
}

/// Refuses a word that is none of these.
pub fn check_word(fields: &Map<String, Value>, name: &str, words: &[&str]) -> Result<(), ApiError> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(word)) if words.contains(&word.as_str()) => Ok(()),
        Some(Value::String(word)) => Err(invalid_value(
            name,
            format!("Invalid value: '{word}'. Supported values are: '{}'.", words.join("', '")),
        )),
        Some(other) => Err(wrong_type(name, "a string", other)),
    }
}

/// A text that is longer than it may be.
pub fn check_length(name: &str, text: &str, most: usize) -> Result<(), ApiError> {
    let length = text.chars().count();
    if length <= most {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "Invalid '{name}': string too long. Expected a string with maximum length {most}, but got a string with length \
         {length} instead."
    ))
    .param(name)
    .code("string_above_max_length"))
}

/// The tokens that a text counts for: a quarter of its bytes, rounded up.
pub fn tokens(text: &str) -> u64 {
    (text.len() as u64).div_ceil(4)
}

/// What users say in a field, for directives: a text or the last of several.
pub fn last_text<'a>(body: &'a Value, name: &str) -> Option<Cow<'a, str>> {
    match body.get(name)? {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Array(texts) => texts
            .iter()
            .rev()
            .find_map(|item| item.as_str().or_else(|| item.get("text").and_then(Value::as_str)))
            .map(Cow::Borrowed),
        _ => None,
    }
}

// --- Embeddings ----------------------------------------------------------------------------------------------

/// `POST …/embeddings`.
#[derive(Debug)]
pub struct Embeddings;

impl Endpoint for Embeddings {
    fn route(&self) -> Route {
        Route::Embeddings
    }

    fn user_text<'a>(&self, body: &'a Value) -> Option<Cow<'a, str>> {
        last_text(body, "input")
    }

    fn respond(&self, _: &App, _: &Request<'_>, body: &Value, directives: &Directives) -> Result<Reply, ApiError> {
        let (model, inputs, base64, length) = check_embeddings(body)?;
        let data: Vec<Value> = inputs
            .iter()
            .enumerate()
            .map(|(index, input)| {
                let vector = vector(&directives::extract(input).0, length);
                let embedding = match base64 {
                    true => Value::String(packed(&vector)),
                    false => json!(vector),
                };
                json!({"object": "embedding", "index": index, "embedding": embedding})
            })
            .collect();
        let counted = inputs.iter().map(|input| tokens(&directives::extract(input).0)).sum();
        let prompt = directives.usage_in.unwrap_or(counted);
        let mut reply = json!({"object": "list", "data": data, "model": model});
        if !directives.no_usage {
            put(&mut reply, "usage", json!({"prompt_tokens": prompt, "total_tokens": prompt}));
        }
        Ok(Reply::json(200, reply.to_string()))
    }
}

/// Numbers as bytes, little endian, in base64.
pub fn packed(vector: &[f32]) -> String {
    BASE64.encode(vector.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>())
}

/// A vector of length one that belongs to a text.
pub fn vector(text: &str, length: usize) -> Vec<f32> {
    let mut state = fnv(0, text.as_bytes());
    let mut vector: Vec<f32> = (0..length)
        .map(|place| {
            state = fnv(state, &place.to_le_bytes());
            (state >> 40) as f32 / 8_388_608.0 - 1.0
        })
        .collect();
    let norm = vector.iter().map(|number| number * number).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    vector.iter_mut().for_each(|number| *number /= norm);
    vector
}

type EmbeddingsAsked<'a> = (&'a str, Vec<Cow<'a, str>>, bool, usize);

fn check_embeddings(body: &Value) -> Result<EmbeddingsAsked<'_>, ApiError> {
    let fields = object(body)?;
    let model = match fields.get("model") {
        None | Some(Value::Null) => return Err(ApiError::invalid("you must provide a model parameter")),
        _ => demand(fields, "model")?,
    };
    let invalid = || {
        ApiError::invalid(
            "'$.input' is invalid. Please check the API reference: https://platform.openai.com/docs/api-reference.",
        )
    };
    let token_list = |list: &[Value]| -> Result<Cow<'_, str>, ApiError> {
        if list.is_empty() || !list.iter().all(Value::is_u64) {
            return Err(invalid());
        }
        if list.len() > MAX_INPUT_TOKENS {
            return Err(ApiError::invalid(format!(
                "This model's maximum context length is {MAX_INPUT_TOKENS} tokens, however you requested {} tokens ({} \
                 in your prompt; 0 for the completion). Please reduce your prompt; or completion length.",
                list.len(),
                list.len()
            )));
        }
        Ok(Cow::Owned(list.iter().map(|token| format!("{token:0>4}")).collect()))
    };
    let text = |text: &'_ str| match text.is_empty() {
        true => Err(ApiError::invalid("Invalid 'input': input cannot be an empty string.").param("input")),
        false => Ok(Cow::Owned(text.to_owned())),
    };
    let inputs = match fields.get("input") {
        None | Some(Value::Null) => return Err(missing("input")),
        Some(Value::String(input)) => vec![text(input)?],
        Some(Value::Array(list)) if list.is_empty() => return Err(invalid()),
        Some(Value::Array(list)) if list.len() > MAX_INPUTS && !list.iter().all(Value::is_u64) => {
            return Err(ApiError::invalid(format!(
                "Invalid 'input': array too long. Expected an array with maximum length {MAX_INPUTS}, but got an array \
                 with length {} instead.",
                list.len()
            ))
            .param("input")
            .code("array_above_max_length"));
        }
        Some(Value::Array(list)) if list.iter().all(Value::is_u64) => vec![token_list(list)?],
        Some(Value::Array(list)) => list
            .iter()
            .map(|input| match input {
                Value::String(input) => text(input),
                Value::Array(list) => token_list(list),
                _ => Err(invalid()),
            })
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(invalid()),
    };
    check_word(fields, "encoding_format", &["float", "base64"])?;
    let own = match model {
        "text-embedding-3-large" => 3072,
        _ => 1536,
    };
    let dimensions = check_integer("dimensions", fields.get("dimensions").filter(|v| !v.is_null()), 1, 4096)?;
    if dimensions.is_some() && model == "text-embedding-ada-002" {
        return Err(ApiError::invalid("This model does not support specifying dimensions."));
    }
    let length = dimensions.and_then(|length| usize::try_from(length).ok()).unwrap_or(own);
    let base64 = fields.get("encoding_format").is_some_and(|format| format == "base64");
    Ok((model, inputs, base64, length))
}

// --- Moderations ---------------------------------------------------------------------------------------------

/// `POST …/moderations`. What says `block=1` is flagged.
#[derive(Debug)]
pub struct Moderations;

impl Endpoint for Moderations {
    fn route(&self) -> Route {
        Route::Moderations
    }

    fn user_text<'a>(&self, body: &'a Value) -> Option<Cow<'a, str>> {
        last_text(body, "input")
    }

    fn respond(&self, app: &App, _: &Request<'_>, body: &Value, directives: &Directives) -> Result<Reply, ApiError> {
        let (model, results) = check_moderations(body)?;
        let verdict = |images: bool| {
            let flagged = directives.block;
            let each = |value: &dyn Fn(bool) -> Value| -> Value {
                CATEGORIES
                    .iter()
                    .map(|name| ((*name).to_owned(), value(flagged && *name == "violence")))
                    .collect::<Map<_, _>>()
                    .into()
            };
            let types = if images { json!(["image"]) } else { json!(["text"]) };
            json!({
                "flagged": flagged,
                "categories": each(&|hit| json!(hit)),
                "category_scores": each(&|hit| json!(if hit { 0.97 } else { 0.000_01 })),
                "category_applied_input_types": each(&|_| types.clone()),
            })
        };
        let results: Vec<Value> = results.into_iter().map(verdict).collect();
        let reply = json!({"id": app.id("modr-", 32), "model": model, "results": results});
        Ok(Reply::json(200, reply.to_string()))
    }
}

/// The model, and for each result whether it is about a picture.
fn check_moderations(body: &Value) -> Result<(&str, Vec<bool>), ApiError> {
    let fields = object(body)?;
    let model = match fields.get("model") {
        None | Some(Value::Null) => "omni-moderation-latest",
        _ => demand(fields, "model")?,
    };
    match fields.get("input") {
        None | Some(Value::Null) => Err(missing("input")),
        Some(Value::String(_)) => Ok((model, vec![false])),
        Some(Value::Array(list)) if list.is_empty() => {
            Err(ApiError::invalid("'input' must not be empty.").param("input"))
        }
        Some(Value::Array(list)) if list.iter().all(Value::is_string) => Ok((model, vec![false; list.len()])),
        Some(Value::Array(list)) => {
            for (at, item) in list.iter().enumerate() {
                let place = match item.get("type").and_then(Value::as_str) {
                    Some("text") if item.get("text").is_some_and(Value::is_string) => continue,
                    Some("image_url") if item.pointer("/image_url/url").is_some_and(Value::is_string) => continue,
                    Some("text") => format!("input[{at}].text"),
                    Some("image_url") => format!("input[{at}].image_url.url"),
                    Some(_) => format!("input[{at}].type"),
                    None => return Err(missing(&format!("input[{at}].type"))),
                };
                return Err(invalid_value(&place, format!("Invalid value for '{place}'.")));
            }
            // Several parts are judged as one.
            let pictures = list.iter().any(|item| item.get("image_url").is_some());
            Ok((model, vec![pictures]))
        }
        Some(other) => Err(wrong_type("input", "one of a string, an array of strings or an array of objects", other)),
    }
}

// --- Rerank --------------------------------------------------------------------------------------------------

/// `POST …/rerank` in the shape that most providers share.
#[derive(Debug)]
pub struct Rerank;

/// A rerank request that passed the checks.
#[derive(Debug)]
pub struct RerankAsked<'a> {
    pub model: &'a str,
    pub query: &'a str,
    pub documents: Vec<&'a str>,
    pub top_n: usize,
    pub return_documents: bool,
}

impl Endpoint for Rerank {
    fn route(&self) -> Route {
        Route::Rerank
    }

    fn user_text<'a>(&self, body: &'a Value) -> Option<Cow<'a, str>> {
        last_text(body, "query")
    }

    fn respond(&self, app: &App, _: &Request<'_>, body: &Value, directives: &Directives) -> Result<Reply, ApiError> {
        let asked = check_rerank(body)?;
        let counted = asked.documents.iter().map(|document| tokens(document)).sum::<u64>() + tokens(asked.query);
        let total = directives.usage_in.unwrap_or(counted);
        let mut reply = json!({
            "id": app.id("rerank-", 24), "object": "list", "model": asked.model, "results": asked.results(),
        });
        if !directives.no_usage {
            put(&mut reply, "usage", json!({"prompt_tokens": total, "total_tokens": total}));
        }
        Ok(Reply::json(200, reply.to_string()))
    }
}

impl RerankAsked<'_> {
    /// The documents' places with their scores, the best first: the share of the query's words that a document has.
    pub fn results(&self) -> Vec<Value> {
        let (query, _) = directives::extract(self.query);
        let words = |text: &str| -> Vec<String> {
            text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
        };
        let wanted = words(&query);
        let mut scored: Vec<(usize, f64)> = self
            .documents
            .iter()
            .map(|document| {
                let present = words(document);
                let hits = wanted.iter().filter(|word| present.contains(word)).count();
                0.01 + 0.98 * hits as f64 / wanted.len().max(1) as f64
            })
            .enumerate()
            .collect();
        scored.sort_by(|a, b| b.1.total_cmp(&a.1));
        scored
            .into_iter()
            .take(self.top_n)
            .map(|(index, score)| {
                let mut result = json!({"index": index, "relevance_score": score});
                if self.return_documents {
                    put(&mut result, "document", json!({"text": self.documents.get(index)}));
                }
                result
            })
            .collect()
    }
}

/// Checks a rerank request.
pub fn check_rerank(body: &Value) -> Result<RerankAsked<'_>, ApiError> {
    let fields = object(body)?;
    let documents = match fields.get("documents") {
        None | Some(Value::Null) => return Err(missing("documents")),
        Some(Value::Array(documents)) => documents,
        Some(other) => return Err(wrong_type("documents", "an array", other)),
    };
    if documents.is_empty() || documents.len() > MAX_DOCUMENTS {
        return Err(
            ApiError::invalid(format!("'documents' takes from 1 to {MAX_DOCUMENTS} documents.")).param("documents")
        );
    }
    let texts = documents.iter().enumerate().map(|(at, document)| {
        let text = document.as_str().or_else(|| document.get("text").and_then(Value::as_str));
        text.ok_or_else(|| wrong_type(&format!("documents[{at}]"), "a string", document))
    });
    let query = demand(fields, "query")?;
    if query.is_empty() {
        return Err(ApiError::invalid("'query' must not be empty.").param("query"));
    }
    let top_n = check_integer("top_n", fields.get("top_n").filter(|value| !value.is_null()), 1, u64::MAX)?;
    Ok(RerankAsked {
        model: demand(fields, "model")?,
        query,
        documents: texts.collect::<Result<_, _>>()?,
        top_n: top_n.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX),
        return_documents: check_bool("return_documents", fields.get("return_documents"))?.unwrap_or(false),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorded::taken;

    #[test]
    fn recorded_embeddings_pass() {
        for request in taken(&["embeddings"]).iter().filter(|request| request.provider == "openai") {
            assert!(check_embeddings(&request.body).is_ok(), "{}", request.id);
        }
    }

    #[test]
    fn inputs_of_embeddings_come_in_four_forms() {
        for (input, count) in [(json!("a"), 1), (json!(["a", "b"]), 2), (json!([1, 2]), 1), (json!([[1], [2, 3]]), 2)] {
            assert_eq!(check_embeddings(&json!({"model": "m", "input": input})).unwrap().1.len(), count);
        }
        for input in [json!([]), json!([1, "a"]), json!([[]]), json!({}), json!(""), json!(["a", ""]), Value::Null] {
            assert!(check_embeddings(&json!({"model": "m", "input": input})).is_err(), "{input}");
        }
        let many = json!({"model": "m", "input": vec!["a"; 2049]});
        assert_eq!(check_embeddings(&many).unwrap_err().code.as_deref(), Some("array_above_max_length"));
        let long = json!({"model": "m", "input": vec![1; 8193]});
        assert!(check_embeddings(&long).unwrap_err().message.contains("maximum context length"));
    }

    #[test]
    fn embeddings_have_known_formats_and_lengths() {
        let with = |name: &str, value: Value| {
            let mut body = json!({"model": "text-embedding-ada-002", "input": "a"});
            put(&mut body, name, value);
            body
        };
        assert!(check_embeddings(&json!({"input": "a"})).unwrap_err().message.contains("model"));
        assert!(check_embeddings(&with("encoding_format", json!("int8"))).is_err());
        assert!(check_embeddings(&with("dimensions", json!(0))).is_err());
        let error = check_embeddings(&with("dimensions", json!(8))).unwrap_err();
        assert_eq!(error.message, "This model does not support specifying dimensions.");
        let large = json!({"model": "text-embedding-3-large", "input": "a", "encoding_format": "base64"});
        let (_, _, base64, length) = check_embeddings(&large).unwrap();
        assert_eq!((base64, length), (true, 3072));
    }

    #[test]
    fn vectors_are_of_length_one_and_the_same_in_both_forms() {
        let vector = vector("text", 64);
        assert!((vector.iter().map(|number| number * number).sum::<f32>() - 1.0).abs() < 0.000_1);
        let bytes = BASE64.decode(packed(&vector)).unwrap();
        let read: Vec<f32> = bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
        assert_eq!(read, vector);
        assert_ne!(vector, super::vector("other", 64));
    }

    #[test]
    fn moderation_takes_texts_and_parts() {
        let parts = json!([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "https://a"}}]);
        assert_eq!(check_moderations(&json!({"input": parts})).unwrap(), ("omni-moderation-latest", vec![true]));
        assert_eq!(check_moderations(&json!({"input": ["a", "b"]})).unwrap().1.len(), 2);
        for input in
            [Value::Null, json!([]), json!(3), json!([{"type": "text"}]), json!([{"type": "file"}]), json!([{}])]
        {
            assert!(check_moderations(&json!({"input": input})).is_err(), "{input}");
        }
    }

    #[test]
    fn reranking_puts_the_best_first() {
        let body = json!({
            "model": "m", "query": "red apples", "documents": ["blue sky", {"text": "red apples"}, "red sky"],
            "top_n": 2, "return_documents": true,
        });
        let results = check_rerank(&body).unwrap().results();
        let order: Vec<u64> = results.iter().map(|result| result["index"].as_u64().unwrap()).collect();
        assert_eq!((order, &results[0]["document"]["text"]), (vec![1, 2], &json!("red apples")));
        for (name, value) in [
            ("documents", json!([])),
            ("documents", json!([1])),
            ("documents", json!("a")),
            ("query", json!("")),
            ("query", Value::Null),
            ("model", Value::Null),
            ("top_n", json!(0)),
        ] {
            let mut body = body.clone();
            put(&mut body, name, value);
            assert!(check_rerank(&body).is_err(), "{name}");
        }
    }
}
