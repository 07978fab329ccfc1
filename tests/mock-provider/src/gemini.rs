//! Google's Gemini API, and what of Vertex AI is the same: which path is whose, credentials, errors.
//!
//! The checks are in [`rules`] and [`proto`], the answers in [`reply`].

pub mod proto;
mod reply;
mod rules;

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::answer::fnv;
use crate::directives::{Directives, percent_decode};
use crate::endpoint::Endpoint;
use crate::http::Request;
use crate::journal::Route;
use crate::reply::{ApiError, Reply, json_string};
use crate::server::App;
use crate::vertex;
use proto::{Host, elements, member};

/// Models that are listed.
const MODELS: [&str; 4] = ["gemini-3-flash-preview", "gemini-2.5-flash", "gemini-2.0-flash", "gemini-embedding-2"];
/// Numbers of an embedding unless the request says otherwise.
const DIMENSIONS: u64 = 64;
/// Most numbers of an embedding.
const MAX_DIMENSIONS: u64 = 3072;

/// What is asked of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Generate,
    Stream,
    CountTokens,
    Embed,
    BatchEmbed,
    Predict,
    /// The list of models.
    List,
    Get,
    /// A path of this API with nothing behind it.
    Unknown,
}

/// A request to this API.
#[derive(Debug)]
pub struct Gemini {
    host: Host,
    version: String,
    model: String,
    verb: Verb,
    /// Whether a stream is one of events, not a JSON array.
    events: bool,
    /// Whether a key stands in the URL.
    key_in_query: bool,
    /// Most models that are to be listed.
    page: usize,
}

impl Gemini {
    /// Reads the path, whatever stands before the version.
    pub fn find(request: &Request<'_>) -> Option<Self> {
        let path = request.path.strip_suffix('/').unwrap_or(request.path);
        if !path.contains("odels") && !path.contains("/endpoints/") {
            return None;
        }
        let segments: Vec<&str> = path.split('/').collect();
        let start = segments.iter().position(|segment| matches!(*segment, "v1" | "v1beta" | "v1beta1" | "v1alpha"))?;
        let version = segments.get(start).copied()?;
        let rest = segments.get(start + 1..)?;
        let (host, resource) = match rest {
            ["projects", _, "locations", _, "publishers", "google", "models", last] => (vertex_host(version), *last),
            ["projects", _, "locations", _, "endpoints", last] => (vertex_host(version), *last),
            ["models" | "tunedModels", last] if version != "v1" || last.contains(':') => (Host::Gemini, *last),
            ["models"] if version != "v1" => (Host::Gemini, ""),
            _ => return None,
        };
        let (model, verb) = match resource.rsplit_once(':') {
            Some((model, verb)) => (model, verb_of(verb, host)),
            None if resource.is_empty() => ("", Verb::List),
            None => (resource, Verb::Get),
        };
        let pairs = || request.query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Some(Self {
            host,
            version: version.to_owned(),
            model: percent_decode(model),
            verb,
            events: pairs().any(|pair| pair == ("alt", "sse")),
            page: pairs().find(|(name, _)| *name == "pageSize").and_then(|(_, size)| size.parse().ok()).unwrap_or(50),
            key_in_query: pairs().any(|(name, _)| name == "key" || name == "access_token"),
        })
    }

    fn count_tokens(&self, body: &Value, directives: &Directives) -> Result<Reply, ApiError> {
        rules::check_count(body, &self.model, self.host)?;
        let asked = member(body, "generate_content_request").unwrap_or(body);
        let tokens = directives.usage_in.unwrap_or(reply::converse(asked).prompt_tokens);
        let details = json!([{"modality": "TEXT", "tokenCount": tokens}]);
        let counted = if self.host.is_vertex() {
            let characters = tokens.saturating_mul(4);
            json!({"totalTokens": tokens, "totalBillableCharacters": characters, "promptTokensDetails": details})
        } else {
            json!({"totalTokens": tokens, "promptTokensDetails": details})
        };
        Ok(Reply::json(200, counted.to_string()))
    }

    fn embed(&self, body: &Value, directives: &Directives) -> Result<Reply, ApiError> {
        let message = if self.verb == Verb::BatchEmbed { &proto::BATCH_EMBED } else { &proto::EMBED };
        rules::check_embed(body, &self.model, self.host, message)?;
        let values = |request: &Value| {
            let text = text_of(member(request, "content").unwrap_or(&Value::Null)).unwrap_or_default();
            let config = member(request, "embed_content_config").unwrap_or(request);
            let wanted = member(config, "output_dimensionality").and_then(Value::as_u64);
            (vector(&text, wanted), count(&text))
        };
        let reply = if self.verb == Verb::BatchEmbed {
            let all: Vec<(Vec<f64>, u64)> = elements(body, "requests").iter().map(values).collect();
            let tokens = directives.usage_in.unwrap_or(all.iter().map(|(_, tokens)| tokens).sum());
            let embeddings: Vec<Value> = all.iter().map(|(values, _)| json!({"values": values})).collect();
            with_usage("embeddings", json!(embeddings), tokens, directives)
        } else {
            let (values, tokens) = values(body);
            with_usage("embedding", json!({"values": values}), directives.usage_in.unwrap_or(tokens), directives)
        };
        Ok(Reply::json(200, reply.to_string()))
    }

    fn predict(&self, body: &Value, directives: &Directives) -> Result<Reply, ApiError> {
        proto::check(body, &proto::PREDICT, self.host)?;
        let instances = elements(body, "instances");
        if instances.is_empty() {
            return Err(ApiError::invalid("Unable to submit request because at least one instance is required."));
        }
        let wanted = member(body, "parameters")
            .and_then(|parameters| member(parameters, "output_dimensionality"))
            .and_then(Value::as_u64);
        let mut characters = 0;
        let mut predictions = Vec::new();
        for (at, instance) in instances.iter().enumerate() {
            let Some(text) = member(instance, "content").and_then(Value::as_str) else {
                return Err(ApiError::invalid(format!("The instance at index {at} has no content.")));
            };
            characters += text.chars().count();
            let tokens = directives.usage_in.unwrap_or(count(text));
            predictions.push(json!({"embeddings": {
                "statistics": {"truncated": false, "token_count": tokens}, "values": vector(text, wanted),
            }}));
        }
        let reply = json!({"predictions": predictions, "metadata": {"billableCharacterCount": characters}});
        Ok(Reply::json(200, reply.to_string()))
    }

    fn models(&self) -> Result<Reply, ApiError> {
        let model = |id: &str| {
            json!({
                "name": format!("models/{id}"), "version": "001", "displayName": id, "inputTokenLimit": 1_048_576,
                "outputTokenLimit": 65_536,
                "supportedGenerationMethods": ["generateContent", "countTokens", "batchEmbedContents"],
            })
        };
        let body = match self.verb {
            Verb::List if self.page < MODELS.len() => {
                let page: Vec<Value> = MODELS.iter().take(self.page).map(|id| model(id)).collect();
                json!({"models": page, "nextPageToken": "mock"})
            }
            Verb::List => json!({"models": MODELS.map(model)}),
            _ if MODELS.contains(&self.model.as_str()) => model(&self.model),
            _ => return Err(self.not_found("GetModel")),
        };
        Ok(Reply::json(200, body.to_string()))
    }

    fn not_found(&self, method: &str) -> ApiError {
        ApiError::new(
            404,
            format!(
                "models/{} is not found for API version {}, or is not supported for {method}. Call ListModels to see \
                 the list of available models and their supported methods.",
                self.model, self.version
            ),
        )
    }

    fn check_credential(&self, app: &App, request: &Request<'_>, directives: &Directives) -> Result<(), ApiError> {
        if self.key_in_query {
            return Err(ApiError::invalid("Credentials must not stand in the URL, where they would be logged."));
        }
        if self.host.is_vertex() {
            return vertex::check_token(app, request, directives);
        }
        if request.header("x-goog-api-key").is_none_or(str::is_empty) {
            return Err(ApiError::new(
                403,
                "Method doesn't allow unregistered callers (callers without established identity). Please use API Key \
                 or other form of API consumer identity to call this API.",
            ));
        }
        Ok(())
    }
}

fn vertex_host(version: &str) -> Host {
    if version == "v1" { Host::VertexStable } else { Host::Vertex }
}

fn verb_of(name: &str, host: Host) -> Verb {
    match name {
        "generateContent" => Verb::Generate,
        "streamGenerateContent" => Verb::Stream,
        "countTokens" => Verb::CountTokens,
        "embedContent" => Verb::Embed,
        "batchEmbedContents" if host == Host::Gemini => Verb::BatchEmbed,
        "predict" if host.is_vertex() => Verb::Predict,
        _ => Verb::Unknown,
    }
}

impl Endpoint for Gemini {
    fn route(&self) -> Route {
        Route::Gemini
    }

    fn methods(&self) -> &'static [&'static str] {
        match self.verb {
            Verb::List | Verb::Get => &["GET", "HEAD"],
            _ => &["POST"],
        }
    }

    fn model<'a>(&'a self, _: &'a Value) -> &'a str {
        &self.model
    }

    fn user_text<'a>(&self, body: &'a Value) -> Option<Cow<'a, str>> {
        let body = member(body, "generate_content_request").unwrap_or(body);
        let contents = elements(body, "contents").iter().rev();
        let mut asked = contents.filter(|content| member(content, "role").and_then(Value::as_str) != Some("model"));
        if let Some(text) = asked.find_map(text_of) {
            return Some(text);
        }
        let requests = elements(body, "requests").iter().rev().chain(std::iter::once(body));
        let mut texts = requests.filter_map(|request| text_of(member(request, "content")?));
        texts.next().or_else(|| elements(body, "instances").last()?.get("content")?.as_str().map(Cow::Borrowed))
    }

    fn refuse_key(&self, request: &Request<'_>, key: &str) -> Option<ApiError> {
        let refused = !self.host.is_vertex() && request.header("x-goog-api-key").is_some_and(|given| given != key);
        refused.then(|| ApiError::invalid("API key not valid. Please pass a valid API key.").code("API_KEY_INVALID"))
    }

    fn unreadable(&self, error: &str) -> ApiError {
        ApiError::invalid(format!("Invalid JSON payload received. {error}"))
    }

    fn error_body(&self, error: &ApiError) -> String {
        let body = error_body(error);
        // A stream that is an array is one in its errors, too.
        if self.verb == Verb::Stream && !self.events { format!("[{body}\n]") } else { body }
    }

    fn headers(&self, _: &App, reply: Reply) -> Reply {
        reply.header("x-content-type-options", "nosniff")
    }

    fn verdict(&self, app: &App, request: &Request<'_>) -> Option<String> {
        if self.host.is_vertex() {
            return Some(vertex::verdict(app, request));
        }
        Some(if request.header("x-goog-api-key").is_some() { "key" } else { "none" }.to_owned())
    }

    fn respond(
        &self,
        app: &App,
        request: &Request<'_>,
        body: &Value,
        directives: &Directives,
    ) -> Result<Reply, ApiError> {
        self.check_credential(app, request, directives)?;
        match self.verb {
            Verb::Generate | Verb::Stream => {
                rules::check(body, &self.model, self.host)?;
                let streamed = self.verb == Verb::Stream && !directives.badjson;
                let asked = reply::Asked { model: &self.model, host: self.host, body };
                let framed = streamed.then_some(self.events && !directives.json_array);
                Ok(reply::answer(app, &asked, framed, directives))
            }
            Verb::CountTokens => self.count_tokens(body, directives),
            Verb::Embed | Verb::BatchEmbed => self.embed(body, directives),
            Verb::Predict => self.predict(body, directives),
            Verb::List | Verb::Get => self.models(),
            Verb::Unknown => Err(self.not_found("this method")),
        }
    }
}

/// Renders an error. A parameter is the details in full; a code is the reason in `ErrorInfo`.
pub fn error_body(error: &ApiError) -> String {
    let status = error.kind.as_deref().unwrap_or(match error.status {
        401 => "UNAUTHENTICATED",
        402 | 403 => "PERMISSION_DENIED",
        404 | 405 => "NOT_FOUND",
        409 => "ABORTED",
        429 => "RESOURCE_EXHAUSTED",
        499 => "CANCELLED",
        500 => "INTERNAL",
        501 => "UNIMPLEMENTED",
        502 | 503 | 529 => "UNAVAILABLE",
        408 | 504 => "DEADLINE_EXCEEDED",
        _ => "INVALID_ARGUMENT",
    });
    let mut details: Vec<String> = Vec::new();
    details.extend(error.param.as_deref().map(|list| {
        let inner = list.strip_prefix('[').and_then(|list| list.strip_suffix(']'));
        inner.unwrap_or(list).to_owned()
    }));
    details.extend(error.code.as_deref().map(|reason| {
        format!(
            r#"{{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":{},"domain":"googleapis.com"}}"#,
            json_string(reason)
        )
    }));
    let details = if details.is_empty() { String::new() } else { format!(r#","details":[{}]"#, details.join(",")) };
    format!(
        r#"{{"error":{{"code":{},"message":{},"status":{}{details}}}}}"#,
        error.status,
        json_string(&error.message),
        json_string(status)
    )
}

/// When to come back, as Google says it.
pub fn retry_info(seconds: u64) -> String {
    format!(r#"[{{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"{seconds}s"}}]"#)
}

/// The text of a content; None if it has none.
fn text_of(content: &Value) -> Option<Cow<'_, str>> {
    let texts: Vec<&str> = elements(content, "parts")
        .iter()
        .filter(|part| member(part, "thought") != Some(&Value::Bool(true)))
        .filter_map(|part| member(part, "text").and_then(Value::as_str))
        .collect();
    match texts.as_slice() {
        [] => None,
        [one] => Some(Cow::Borrowed(one)),
        several => Some(Cow::Owned(several.join("\n"))),
    }
}

fn count(text: &str) -> u64 {
    u64::try_from(text.len()).unwrap_or(u64::MAX).div_ceil(4)
}

/// Numbers that depend on every letter of the text.
pub fn vector(text: &str, dimensions: Option<u64>) -> Vec<f64> {
    let mut hash = fnv(3, text.as_bytes());
    let mut next = || {
        hash = fnv(hash, b"next");
        // Three decimals between -1 and 1.
        f64::from(u32::try_from(hash % 2001).unwrap_or_default()) / 1000.0 - 1.0
    };
    (0..dimensions.unwrap_or(DIMENSIONS).min(MAX_DIMENSIONS)).map(|_| next()).collect()
}

fn with_usage(name: &str, embeddings: Value, tokens: u64, directives: &Directives) -> Value {
    if directives.no_usage {
        return json!({name: embeddings});
    }
    let details = json!([{"modality": "TEXT", "tokenCount": tokens}]);
    json!({name: embeddings, "usageMetadata": {"promptTokenCount": tokens, "promptTokenDetails": details}})
}

#[cfg(test)]
mod tests;
