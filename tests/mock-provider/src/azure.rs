//! Azure OpenAI: OpenAI's API under addresses of deployments and under `/openai/v1`, with credentials, errors and
//! filters of its own. A deployment is called `missing` when it shall not exist.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::directives::{Directives, percent_decode};
use crate::endpoint::Endpoint;
use crate::http::Request;
use crate::journal::Route;
use crate::openai::{self, bearer};
use crate::presets::Inner;
use crate::reply::{ApiError, Body, Reply, put};
use crate::responses::Strictness;
use crate::server::App;
use crate::tokens::{Issuer, Standing};
use crate::wire::{Event, Kind};

/// One endpoint of a resource.
#[derive(Debug)]
pub struct Azure {
    /// None below `/openai/v1`.
    deployment: Option<String>,
    inner: Inner,
}

/// The endpoint that a path names.
pub fn find(path: &str) -> Option<Azure> {
    if path.starts_with("/p/") && !path.starts_with("/p/azure/") {
        return None;
    }
    let deployment = match path.split_once("/openai/deployments/") {
        Some((_, rest)) => Some(percent_decode(rest.split_once('/')?.0)),
        None if path.contains("/openai/v1/") => None,
        // The older address of the Responses API has no deployment.
        None if path.ends_with("/openai/responses") || path.contains("/openai/responses/") => Some(String::new()),
        None => return None,
    };
    Some(Azure { deployment, inner: Inner::find(path, Strictness::Closed)? })
}

fn unauthorised() -> ApiError {
    ApiError::new(
        401,
        "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an \
         active subscription and use a correct regional API endpoint for your resource.",
    )
    .code("401")
}

/// What became of the filters: nothing, or too much violence.
fn filters(blocked: bool, prompt: bool) -> Value {
    let safe = json!({"filtered": false, "severity": "safe"});
    let mut filters = json!({"hate": safe, "self_harm": safe, "sexual": safe, "violence": safe});
    if blocked {
        put(&mut filters, "violence", json!({"filtered": true, "severity": "medium"}));
    }
    if prompt {
        put(&mut filters, "jailbreak", json!({"filtered": false, "detected": false}));
    }
    filters
}

fn prompt_filters() -> Value {
    json!([{"prompt_index": 0, "content_filter_results": filters(false, true)}])
}

impl Azure {
    /// A key in its header, or a token. Below `/openai/v1` a key may also come as a bearer.
    fn check_credential(&self, app: &App, request: &Request<'_>, directives: &Directives) -> Result<(), ApiError> {
        if request.header("api-key").is_some_and(|key| !key.is_empty()) {
            return Ok(());
        }
        match bearer(request) {
            None => Err(unauthorised()),
            Some(key) if self.deployment.is_none() && !looks_minted(key) => Ok(()),
            Some(token) => match app.tokens.standing(token, Issuer::Entra, directives) {
                Standing::Good => Ok(()),
                Standing::Expired | Standing::Unknown => Err(ApiError::new(
                    401,
                    "Unauthorized. Access token is missing, invalid, audience is incorrect \
                     (https://cognitiveservices.azure.com), or have expired.",
                )
                .code("401")),
            },
        }
    }

    fn check_address(&self, request: &Request<'_>) -> Result<(), ApiError> {
        let Some(deployment) = &self.deployment else { return Ok(()) };
        let version = request.query.split('&').find_map(|pair| pair.strip_prefix("api-version="));
        if !version.is_some_and(is_version) {
            return Err(ApiError::new(404, "Resource not found").code("404"));
        }
        if deployment == "missing" {
            return Err(ApiError::new(
                404,
                "The API deployment for this resource does not exist. If you created the deployment within the last 5 \
                 minutes, please wait a moment and try again.",
            )
            .code("DeploymentNotFound"));
        }
        Ok(())
    }

    fn chat(&self, app: &App, body: &Value, directives: &Directives) -> Result<Reply, ApiError> {
        let mut body = body.clone();
        if let Some(deployment) = self.deployment.as_deref().filter(|_| body.get("model").is_none_or(Value::is_null)) {
            put(&mut body, "model", json!(deployment));
        }
        let files = body.get("messages").and_then(Value::as_array).into_iter().flatten().any(|message| {
            let parts = message.get("content").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            parts.iter().any(|part| part.get("type").is_some_and(|kind| kind == "file"))
        });
        if files {
            return Err(ApiError::invalid("Invalid Value: 'file'. This model does not support file content types.")
                .param("messages")
                .code("invalid_value"));
        }
        let mut reply = openai::respond(app, &body, directives)?;
        match &mut reply.body {
            Body::Whole(bytes) => {
                if let Ok(mut whole) = serde_json::from_slice::<Value>(bytes) {
                    put(&mut whole, "prompt_filter_results", prompt_filters());
                    for choice in whole.get_mut("choices").and_then(Value::as_array_mut).into_iter().flatten() {
                        put(choice, "content_filter_results", filters(false, false));
                    }
                    *bytes = whole.to_string().into_bytes();
                }
            }
            Body::Stream(events) => {
                let prelude = json!({
                    "choices": [], "created": 0, "id": "", "model": "", "object": "",
                    "prompt_filter_results": prompt_filters(),
                });
                events.events.insert(0, Event::fixed(Kind::Opening, None, prelude.to_string()));
                let results = format!(r#","content_filter_results":{},"logprobs":"#, filters(false, false));
                for template in &mut events.templates {
                    template.tail = template.tail.replacen(r#","logprobs":"#, &results, 1);
                }
            }
        }
        Ok(reply)
    }
}

/// Whether a bearer is a token and no key.
fn looks_minted(token: &str) -> bool {
    token.starts_with("eyJ")
}

/// Versions are dates, some with `-preview`.
fn is_version(version: &str) -> bool {
    let date = version.strip_suffix("-preview").unwrap_or(version);
    let mut parts = date.split('-');
    let mut number = |length: usize| {
        parts.next().is_some_and(|part| part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    number(4) && number(2) && number(2) && date.len() == 10
}

impl Endpoint for Azure {
    fn route(&self) -> Route {
        self.inner.route()
    }

    fn methods(&self) -> &'static [&'static str] {
        self.inner.methods()
    }

    fn needs_body(&self) -> bool {
        self.inner.needs_body()
    }

    fn user_text<'a>(&self, body: &'a Value) -> Option<Cow<'a, str>> {
        self.inner.user_text(body)
    }

    fn unreadable(&self, error: &str) -> ApiError {
        self.inner.unreadable(error)
    }

    fn refuse_key(&self, request: &Request<'_>, key: &str) -> Option<ApiError> {
        let given = request.header("api-key").or_else(|| bearer(request).filter(|token| !looks_minted(token)));
        given.is_some_and(|given| given != key).then(unauthorised)
    }

    fn verdict(&self, app: &App, request: &Request<'_>) -> Option<String> {
        let verdict = match (request.header("api-key"), bearer(request)) {
            (Some(_), _) => "key",
            (None, None) => "none",
            (None, Some(token)) => match app.tokens.standing(token, Issuer::Entra, &Directives::default()) {
                Standing::Good => "token good",
                Standing::Expired => "token expired",
                Standing::Unknown if self.deployment.is_none() && !looks_minted(token) => "key",
                Standing::Unknown => "token unknown",
            },
        };
        Some(verdict.to_owned())
    }

    fn error_body(&self, error: &ApiError) -> String {
        let own = match error.status {
            401 => Some("401"),
            404 => Some("404"),
            429 => Some("429"),
            _ => None,
        };
        let mut body = serde_json::from_str(&openai::error_body(error)).unwrap_or(Value::Null);
        let blocked = error.code.as_deref() == Some("content_filter");
        if let Some(object) = body.get_mut("error") {
            if let Some(own) = own {
                let code = error.code.as_deref().unwrap_or(own);
                *object = json!({"code": code, "message": error.message});
            }
            if blocked {
                put(object, "type", Value::Null);
                put(object, "status", json!(error.status));
                put(
                    object,
                    "innererror",
                    json!({"code": "ResponsibleAIPolicyViolation", "content_filter_result": filters(true, true)}),
                );
            }
        }
        body.to_string()
    }

    fn headers(&self, app: &App, reply: Reply) -> Reply {
        let limited = reply.status == 429;
        let reply = reply
            .header("apim-request-id", app.id("", 32))
            .header("x-ms-region", "Mock East")
            .header("x-ratelimit-remaining-requests", "999")
            .header("x-ratelimit-remaining-tokens", "99000");
        if limited { reply.header("retry-after", "1").header("retry-after-ms", "1000") } else { reply }
    }

    fn respond(
        &self,
        app: &App,
        request: &Request<'_>,
        body: &Value,
        directives: &Directives,
    ) -> Result<Reply, ApiError> {
        self.check_credential(app, request, directives)?;
        self.check_address(request)?;
        if directives.block {
            return Err(ApiError::invalid(
                "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. \
                 Please modify your prompt and retry. To learn more about our content filtering policies please read \
                 our documentation: https://go.microsoft.com/fwlink/?linkid=2198766",
            )
            .param("prompt")
            .code("content_filter"));
        }
        match &self.inner {
            Inner::Chat => self.chat(app, body, directives),
            Inner::Shared(endpoint) => {
                let mut body = body.clone();
                let named = self.deployment.as_deref().filter(|name| !name.is_empty());
                if let Some(deployment) = named.filter(|_| body.get("model").is_none_or(Value::is_null)) {
                    put(&mut body, "model", json!(deployment));
                }
                endpoint.respond(app, request, &body, directives)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_dates() {
        for good in ["2024-10-21", "2025-04-01-preview"] {
            assert!(is_version(good), "{good}");
        }
        for bad in ["", "v1", "2024-10", "2024-10-211", "preview", "2024-1-021", "2024-10-21-beta"] {
            assert!(!is_version(bad), "{bad}");
        }
    }

    #[test]
    fn addresses_name_deployments_or_none() {
        let deployment = |path: &str| find(path).map(|azure| azure.deployment);
        assert_eq!(deployment("/openai/deployments/gpt%204/chat/completions"), Some(Some("gpt 4".to_owned())));
        assert_eq!(deployment("/p/azure/openai/v1/chat/completions"), Some(None));
        assert_eq!(deployment("/openai/responses"), Some(Some(String::new())));
        assert_eq!(deployment("/p/groq/openai/v1/chat/completions"), None);
        assert_eq!(deployment("/v1/chat/completions"), None);
        assert_eq!(deployment("/openai/deployments/a/nothing"), None);
    }
}
