//! Amazon Bedrock's runtime API: Converse, token counts and the models' own requests.
//!
//! The checks are in [`shapes`] and [`rules`], signatures in [`sigv4`], answers in [`reply`].

mod reply;
mod rules;
mod shapes;
mod sigv4;

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::directives::{Directives, percent_decode};
use crate::endpoint::Endpoint;
use crate::http::Request;
use crate::journal::{Route, unix_ms};
use crate::reply::{ApiError, Reply, json_string};
use crate::server::App;
use crate::wire::Framing;
use crate::{anthropic, gemini, openai};
pub use reply::failure;

/// What a body says that goes to Claude here.
const CLAUDE_VERSION: &str = "bedrock-2023-05-31";
/// Numbers of an embedding unless the request says otherwise.
const DIMENSIONS: u64 = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Converse,
    ConverseStream,
    CountTokens,
    Invoke,
    InvokeStream,
}

/// `POST …/model/{id}/{converse,converse-stream,count-tokens,invoke,invoke-with-response-stream}`.
#[derive(Debug)]
pub struct Bedrock {
    id: String,
    verb: Verb,
}

impl Bedrock {
    pub fn find(request: &Request<'_>) -> Option<Self> {
        let (rest, verb) = request.path.rsplit_once('/')?;
        let verb = match verb {
            "converse" => Verb::Converse,
            "converse-stream" => Verb::ConverseStream,
            "count-tokens" => Verb::CountTokens,
            "invoke" => Verb::Invoke,
            "invoke-with-response-stream" => Verb::InvokeStream,
            _ => return None,
        };
        let (before, id) = rest.rsplit_once('/')?;
        (before.ends_with("/model") && !id.is_empty()).then(|| Self { id: percent_decode(id), verb })
    }

    fn check_credential(&self, request: &Request<'_>) -> Result<(), ApiError> {
        match openai::bearer(request) {
            Some(_) => Ok(()),
            None => sigv4::check(request, unix_ms()),
        }
    }

    /// A request in the model's own words.
    fn invoke(
        &self,
        app: &App,
        request: &Request<'_>,
        body: &Value,
        directives: &Directives,
    ) -> Result<Reply, ApiError> {
        let model = rules::model(&self.id)?;
        if model.vendor == "anthropic" {
            return self.claude(app, request, body, directives);
        }
        if self.verb == Verb::InvokeStream {
            return Err(ApiError::invalid("The model is unsupported for streaming."));
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (reply, tokens) = match model.vendor {
            "amazon" if body.get("inputText").is_some() => titan(body)?,
            "amazon" if body.get("singleEmbeddingParams").is_some() => nova(body)?,
            "cohere" => {
                let texts: Vec<String> =
                    body.get("texts").and_then(Value::as_array).into_iter().flatten().map(text).collect();
                cohere(app, body, &texts, model.name.contains("v4"))?
            }
            _ => {
                return Err(ApiError::invalid("Malformed input request, please reformat your input and try again."));
            }
        };
        let tokens = directives.usage_in.unwrap_or(tokens);
        let reply = Reply::json(200, reply.to_string());
        Ok(if directives.no_usage {
            reply
        } else {
            reply.header("x-amzn-bedrock-input-token-count", tokens.to_string())
        })
    }

    fn claude(
        &self,
        app: &App,
        request: &Request<'_>,
        body: &Value,
        directives: &Directives,
    ) -> Result<Reply, ApiError> {
        let mut body = body.clone();
        let streamed = self.verb == Verb::InvokeStream && !directives.badjson;
        if let Some(fields) = body.as_object_mut() {
            // The path says whether it is a stream.
            if fields.contains_key("stream") {
                return Err(ApiError::invalid(
                    "Malformed input request: #: extraneous key [stream] is not permitted, please reformat your input \
                     and try again.",
                ));
            }
            fields.insert("stream".to_owned(), Value::from(streamed));
        }
        let reply = anthropic::respond_hosted(app, request, &body, directives, CLAUDE_VERSION, Some(&self.id))?;
        Ok(reply.framed(
            Framing::AmazonChunks,
            crate::amazon::CONTENT_TYPE,
            failure(false, directives),
            failure(true, directives),
        ))
    }
}

fn count(text: &str) -> u64 {
    u64::try_from(text.len()).unwrap_or(u64::MAX).div_ceil(4)
}

fn malformed(problem: &str) -> ApiError {
    ApiError::invalid(format!("Malformed input request: {problem}, please reformat your input and try again."))
}

fn known(body: &Value, names: &[&str]) -> Result<(), ApiError> {
    let keys = body.as_object().into_iter().flat_map(|fields| fields.keys());
    match keys.into_iter().find(|key| !names.contains(&key.as_str())) {
        Some(key) => Err(malformed(&format!("#: extraneous key [{key}] is not permitted"))),
        None => Ok(()),
    }
}

fn titan(body: &Value) -> Result<(Value, u64), ApiError> {
    known(body, &["inputText", "dimensions", "normalize", "embeddingTypes"])?;
    let text = body.get("inputText").and_then(Value::as_str).filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| malformed("#/inputText: expected minLength: 1, actual: 0"))?;
    let dimensions = body.get("dimensions").and_then(Value::as_u64);
    if dimensions.is_some_and(|dimensions| ![256, 512, 1024].contains(&dimensions)) {
        return Err(malformed("#/dimensions: the value is not a valid enum value"));
    }
    let values = gemini::vector(text, Some(dimensions.unwrap_or(DIMENSIONS)));
    let tokens = count(text);
    Ok((json!({"embedding": values, "embeddingsByType": {"float": values}, "inputTextTokenCount": tokens}), tokens))
}

fn nova(body: &Value) -> Result<(Value, u64), ApiError> {
    known(body, &["schemaVersion", "taskType", "singleEmbeddingParams"])?;
    let params = body.get("singleEmbeddingParams").unwrap_or(&Value::Null);
    if body.get("taskType").and_then(Value::as_str) != Some("SINGLE_EMBEDDING")
        || params.get("embeddingPurpose").is_none()
    {
        return Err(malformed("required key [embeddingPurpose] or [taskType] not found"));
    }
    let text = params.pointer("/text/value").and_then(Value::as_str).unwrap_or_default();
    let dimensions = params.get("embeddingDimension").and_then(Value::as_u64);
    let values = gemini::vector(text, Some(dimensions.unwrap_or(DIMENSIONS)));
    Ok((json!({"embeddings": [{"embeddingType": "TEXT", "embedding": values}]}), count(text)))
}

fn cohere(app: &App, body: &Value, texts: &[String], by_type: bool) -> Result<(Value, u64), ApiError> {
    known(
        body,
        &["texts", "images", "inputs", "input_type", "truncate", "embedding_types", "max_tokens", "output_dimension"],
    )?;
    if texts.is_empty() || texts.len() > 96 {
        return Err(malformed("#/texts: expected 1 to 96 texts"));
    }
    let kind = body.get("input_type").and_then(Value::as_str).unwrap_or_default();
    if !["search_document", "search_query", "classification", "clustering", "image"].contains(&kind) {
        return Err(malformed("required key [input_type] not found or not a valid enum value"));
    }
    let dimensions = body.get("output_dimension").and_then(Value::as_u64).unwrap_or(DIMENSIONS);
    let vectors: Vec<Vec<f64>> = texts.iter().map(|text| gemini::vector(text, Some(dimensions))).collect();
    let by_type = by_type || body.get("embedding_types").is_some();
    let id = app.id("", 32);
    let reply = if by_type {
        json!({"id": id, "response_type": "embeddings_by_type", "embeddings": {"float": vectors}, "texts": texts})
    } else {
        json!({"id": id, "response_type": "embeddings_floats", "embeddings": vectors, "texts": texts})
    };
    Ok((reply, texts.iter().map(|text| count(text)).sum()))
}

impl Endpoint for Bedrock {
    fn route(&self) -> Route {
        Route::Bedrock
    }

    fn model<'a>(&'a self, _: &'a Value) -> &'a str {
        &self.id
    }

    fn user_text<'a>(&self, body: &'a Value) -> Option<Cow<'a, str>> {
        let body = body.pointer("/input/converse").unwrap_or(body);
        if let Some(text) = body.get("inputText").or_else(|| body.pointer("/singleEmbeddingParams/text/value")) {
            return text.as_str().map(Cow::Borrowed);
        }
        if let Some(texts) = body.get("texts").and_then(Value::as_array) {
            return texts.last()?.as_str().map(Cow::Borrowed);
        }
        let messages = body.get("messages")?.as_array()?;
        let asked = messages.iter().rev().filter(|message| message.get("role").and_then(Value::as_str) == Some("user"));
        let text = |message: &Value| {
            let blocks = message.get("content")?.as_array()?;
            let texts: Vec<&str> = blocks.iter().filter_map(|block| block.get("text")?.as_str()).collect();
            (!texts.is_empty()).then(|| texts.join("\n"))
        };
        asked.into_iter().find_map(text).map(Cow::Owned).or_else(|| anthropic::last_user_text(body))
    }

    fn refuse_key(&self, request: &Request<'_>, key: &str) -> Option<ApiError> {
        let given = openai::bearer(request)?;
        (given != key).then(|| ApiError::new(403, "Authentication failed: Please make sure your API Key is valid."))
    }

    fn unreadable(&self, _: &str) -> ApiError {
        ApiError {
            kind: Some("SerializationException".to_owned()),
            ..ApiError::invalid("Unexpected end or token in the JSON of the request")
        }
    }

    fn error_body(&self, error: &ApiError) -> String {
        format!(r#"{{"message":{}}}"#, json_string(&error.message))
    }

    fn error(&self, error: &ApiError) -> Reply {
        let kind = error.kind.as_deref().unwrap_or(match error.status {
            401 | 403 => "AccessDeniedException",
            404 => "ResourceNotFoundException",
            405 => "UnknownOperationException",
            408 => "ModelTimeoutException",
            424 => "ModelErrorException",
            429 => "ThrottlingException",
            503 | 529 => "ServiceUnavailableException",
            500.. => "InternalServerException",
            _ => "ValidationException",
        });
        Reply::json(error.status, self.error_body(error))
            .header("x-amzn-errortype", format!("{kind}:http://internal.amazon.com/coral/com.amazon.bedrock/"))
    }

    fn headers(&self, app: &App, reply: Reply) -> Reply {
        reply.header("x-amzn-requestid", app.id("", 32))
    }

    fn verdict(&self, _: &App, request: &Request<'_>) -> Option<String> {
        if openai::bearer(request).is_some() {
            return Some("bearer".to_owned());
        }
        if request.header("authorization").is_none() {
            return Some("none".to_owned());
        }
        Some(match sigv4::check(request, unix_ms()) {
            Ok(()) => "signature good".to_owned(),
            Err(error) => format!("signature refused: {}", error.message),
        })
    }

    fn respond(
        &self,
        app: &App,
        request: &Request<'_>,
        body: &Value,
        directives: &Directives,
    ) -> Result<Reply, ApiError> {
        self.check_credential(request)?;
        match self.verb {
            Verb::Converse | Verb::ConverseStream => {
                rules::check(body, &self.id)?;
                let streamed = self.verb == Verb::ConverseStream && !directives.badjson;
                Ok(reply::answer(app, body, streamed, directives))
            }
            Verb::CountTokens => {
                rules::check_count(body, &self.id)?;
                let asked = body.pointer("/input/converse").unwrap_or(body);
                let tokens = directives.usage_in.unwrap_or_else(|| reply::converse(asked).prompt_tokens.max(1));
                Ok(Reply::json(200, format!(r#"{{"inputTokens":{tokens}}}"#)))
            }
            Verb::Invoke | Verb::InvokeStream => self.invoke(app, request, body, directives),
        }
    }
}

#[cfg(test)]
mod tests;
