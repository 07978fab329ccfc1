//! What a probe sends.

use super::judge;
use crate::config::{HealthProbe, Model, ProbeMethod, Provider};
use crate::protocol::Api;
use crate::protocol::chat::{ChatRequest, List, Message, Part, PartBody, Place, Role};
use crate::providers::outbound::translated;
use crate::providers::{Target, outbound};

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
        Self::get(judge::path(provider.dialect()))
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
        let mut chat = ChatRequest::new(Api::ChatCompletions, name.to_owned());
        chat.output.max_tokens = Some(1);
        let at = Place::item(List::Messages, 0);
        let text = Part { body: PartBody::Text { text: "Hi".to_owned(), signature: None }, cache: None, at };
        chat.messages.push(Message { role: Role::User, parts: vec![text], name: None, at });
        let request = translated(outbound(provider.dialect()), target(provider, name, model), &chat);
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
        strict_params: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
