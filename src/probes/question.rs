//! What a probe sends.

use serde_json::json;

use super::judge;
use crate::config::{HealthProbe, Model, ProbeMethod, Provider};
use crate::protocol::json_scan::{ScanLimits, scan_object};
use crate::providers::{Source, Target, adapter};

/// What is sent, still without credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The path below the provider's base URL.
    pub path: String,
    /// Headers that it needs.
    pub headers: Vec<(String, String)>,
    /// What is posted; without it, something is got.
    pub body: Option<Vec<u8>>,
}

impl Question {
    /// Gets something.
    pub fn get(path: &str) -> Self {
        Self { path: path.to_owned(), headers: Vec::new(), body: None }
    }

    /// The test of a connection: what costs nothing, but is there only for those whose credential is good.
    pub fn of_test(provider: &Provider) -> Self {
        Self::get(judge::path(provider.dialect))
    }

    /// A provider's probe; `None` if it has none. `model` looks a model up.
    ///
    /// # Errors
    /// Why it cannot be sent, in words.
    pub fn of_probe<'a>(
        provider: &Provider,
        model: impl FnOnce(&str) -> Option<&'a Model>,
    ) -> Result<Option<Self>, String> {
        let HealthProbe { method, path, model: name, .. } = &provider.health;
        Ok(Some(match method {
            ProbeMethod::None => return Ok(None),
            ProbeMethod::Models => Self::of_test(provider),
            ProbeMethod::Path => Self::get(path.as_deref().unwrap_or_default()),
            ProbeMethod::Chat => {
                let name = name.as_deref().unwrap_or_default();
                let model = model(name).ok_or_else(|| format!("There is no model `{name}`."))?;
                Self::chat(provider, name, model)?
            }
        }))
    }

    /// Has a model say one token.
    fn chat(provider: &Provider, name: &str, model: &Model) -> Result<Self, String> {
        let body = json!({"model": name, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1});
        let body = body.to_string().into_bytes();
        let members = scan_object(&body, ScanLimits { max_depth: 8, max_number_bytes: 8, max_members: 8 });
        let members = members.map_err(|_| "The probe could not be written.".to_owned())?;
        let source = Source { body: &body, members: &members, stream: false };
        let request = adapter(provider.dialect).chat_request(&source, target(provider, name, model));
        let request = request.map_err(|problem| problem.message)?;
        Ok(Self { path: request.path, headers: request.headers, body: Some(request.body) })
    }
}

/// Where a model's probe goes.
pub fn target<'a>(provider: &'a Provider, name: &'a str, model: &'a Model) -> Target<'a> {
    Target {
        provider,
        upstream_model: model.upstream_model.as_deref().unwrap_or(name),
        max_output_tokens: 1,
        structured_output: model.structured_output,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(dialect: &str, health: serde_json::Value) -> Result<Option<Question>, String> {
        let provider = json!({"dialect": dialect, "base_url": "https://p.example/v1", "health": health});
        let provider: Provider = serde_json::from_value(provider).unwrap();
        let model: Model = serde_json::from_value(json!({"provider": "p", "upstream_model": "upstream"})).unwrap();
        Question::of_probe(&provider, |name| (name == "m").then_some(&model))
    }

    #[test]
    fn what_is_sent_follows_the_method() {
        assert_eq!(question("openai", json!({})), Ok(None));
        assert_eq!(question("openai", json!({"method": "models"})), Ok(Some(Question::get("/models"))));
        let path = json!({"method": "path", "path": "/health?deep=1"});
        assert_eq!(question("anthropic", path), Ok(Some(Question::get("/health?deep=1"))));
        let unknown = json!({"method": "chat", "model": "x"});
        assert!(question("openai", unknown).unwrap_err().contains("`x`"));
    }

    #[test]
    fn a_chat_has_the_model_say_one_token_in_the_providers_dialect() {
        for (dialect, path) in [("openai", "/chat/completions"), ("anthropic", "/v1/messages")] {
            let asked = question(dialect, json!({"method": "chat", "model": "m"})).unwrap().unwrap();
            assert_eq!(asked.path, path);
            let body: serde_json::Value = serde_json::from_slice(&asked.body.unwrap()).unwrap();
            assert_eq!((&body["model"], &body["max_tokens"]), (&json!("upstream"), &json!(1)), "{dialect}");
        }
    }
}
