//! A whole reply that is passed on unchanged: whether it is one, and what it used. Everything else in it is skipped over.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::protocol::chat::{FinishReason, ReplyFault};
use crate::protocol::usage::{BillingFacts, Told, Usage};
use crate::providers::Api;

/// What is looked at.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Reply {
    usage: Option<Value>,
    service_tier: Option<Value>,
    error: Option<Value>,
    /// An error has this in place of an answer at vLLM (with its words beside it) …
    object: Option<Value>,
    message: Option<Value>,
    code: Option<Value>,
    /// … this wherever FastAPI speaks for the model …
    detail: Option<Value>,
    /// … and this at MiniMax.
    base_resp: Option<Value>,
    choices: Option<Vec<Choice>>,
    content: Option<IgnoredAny>,
    output: Option<Value>,
    results: Option<IgnoredAny>,
    text: Option<IgnoredAny>,
    audio: Option<IgnoredAny>,
    data: Option<Vec<IgnoredAny>>,
    /// What Cohere has in the usage's place …
    meta: Option<Value>,
    /// … and Groq.
    x_groq: Option<Value>,
    /// Whether a response has failed.
    status: Option<Value>,
    /// How long a sound is that was heard.
    duration: Option<Value>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Choice {
    finish_reason: Option<Value>,
    error: Option<Value>,
    /// Where Moonshot has it.
    usage: Option<Value>,
}

/// Reads the usage of a reply that is passed on unchanged.
///
/// # Errors
/// [`ReplyFault`] if it is an error, or anything but an answer: what an API is called for must be there.
pub fn usage(body: &[u8], api: Api) -> Result<Option<Told>, ReplyFault> {
    let malformed = |error: serde_json::Error| ReplyFault::Malformed(error.to_string());
    let mut reply: Reply = serde_json::from_slice(body).map_err(malformed)?;
    if let Some(fault) = reply.fault(api) {
        return Err(fault);
    }
    if api.is_side() {
        let told = json!({"usage": reply.usage, "meta": reply.meta, "duration": reply.duration});
        return Ok(Told::from_side(api, &told, reply.data.map_or(0, |data| data.len() as u64)));
    }
    let in_choices = reply.choices.iter_mut().flatten().find_map(|choice| choice.usage.take());
    let at_groq = reply.x_groq.as_mut().and_then(|own| own.get_mut("usage")).map(Value::take);
    let Some(usage) = reply.usage.or(at_groq).or(in_choices) else { return Ok(None) };
    Ok(match api {
        Api::ChatCompletions | Api::Completions => {
            Told::from_openai(&json!({"usage": usage, "service_tier": reply.service_tier}))
        }
        Api::Responses => {
            let reply = json!({"usage": usage, "service_tier": reply.service_tier, "output": reply.output});
            let usage = Usage::from_responses_reply(&reply);
            usage.map(|usage| Told { usage, facts: BillingFacts::from_openai(&reply) })
        }
        Api::Messages => {
            let mut counted = Told::default();
            counted.merge_anthropic(&usage);
            Some(counted)
        }
        _ => None,
    })
}

impl Reply {
    /// Why this is no answer.
    fn fault(&self, api: Api) -> Option<ReplyFault> {
        let choices = self.choices.iter().flatten();
        if let Some(error) = self.error.iter().chain(choices.clone().filter_map(|it| it.error.as_ref())).next() {
            return Some(ReplyFault::reported(error));
        }
        let ends = choices.filter_map(|choice| choice.finish_reason.as_ref()?.as_str());
        if let Some(word) = ends.into_iter().find(|word| FinishReason::is_failure(word)) {
            return Some(ReplyFault::failed_finish(word));
        }
        if self.object.as_ref().is_some_and(|object| object == "error") {
            return Some(ReplyFault::reported(&json!({"message": self.message, "code": self.code})));
        }
        if api == Api::Responses && self.status.as_ref().is_some_and(|status| status == "failed") {
            return Some(ReplyFault::failed_finish("failed"));
        }
        let (is_there, name) = match api {
            Api::ChatCompletions | Api::Completions => {
                (self.choices.as_ref().is_some_and(|it| !it.is_empty()), "choices")
            }
            Api::Messages => (self.content.is_some(), "content"),
            Api::Responses => (self.output.is_some(), "output"),
            Api::Embeddings | Api::ImageGeneration | Api::ImageEdit => (self.data.is_some(), "data"),
            Api::Rerank => (self.results.is_some() || self.data.is_some(), "results"),
            Api::Moderations => (self.results.is_some(), "results"),
            Api::Transcription | Api::Translation => (self.text.is_some(), "text"),
            Api::Speech => (self.audio.is_some() || self.data.is_some(), "audio"),
            Api::CountTokens | Api::InputTokens => return None,
        };
        (!is_there).then(|| self.said().unwrap_or_else(|| ReplyFault::Malformed(format!("it has no `{name}`"))))
    }

    /// What stands in the place of an answer.
    fn said(&self) -> Option<ReplyFault> {
        if let Some(own) = &self.base_resp {
            let number = own.get("status_code").map(Value::to_string);
            let words = own.get("status_msg").and_then(Value::as_str).unwrap_or_default();
            return Some(ReplyFault::reported(&json!({"message": words, "code": number})));
        }
        let words = self.detail.as_ref().or(self.message.as_ref())?;
        let words = words.as_str().map_or_else(|| words.to_string(), str::to_owned);
        Some(ReplyFault::reported(&json!({"message": words, "code": self.code})))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_wherever_it_stands() {
        let told = |api, body: Value| {
            usage(body.to_string().as_bytes(), api).unwrap().map(|told| (told.usage.input_total(), told.usage.output))
        };
        let counted = json!({"prompt_tokens": 3, "completion_tokens": 2});
        let chat = |more: Value| {
            let mut body = json!({"choices": [{"finish_reason": "stop"}]});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            told(Api::ChatCompletions, body)
        };
        assert_eq!(chat(json!({"usage": counted})), Some((3, 2)));
        assert_eq!(chat(json!({"x_groq": {"usage": counted}})), Some((3, 2)));
        assert_eq!(chat(json!({"choices": [{"usage": counted}]})), Some((3, 2)));
        assert_eq!(chat(json!({"usage": null})), None);
        let message = json!({"content": [], "usage": {"input_tokens": 4, "output_tokens": 1}});
        assert_eq!(told(Api::Messages, message), Some((4, 1)));
        let embedded = json!({"data": [], "usage": {"prompt_tokens": 5}});
        assert_eq!(told(Api::Embeddings, embedded), Some((5, 0)));
    }

    #[test]
    fn what_is_no_answer_is_no_success() {
        let fault = |api, body: &str| match usage(body.as_bytes(), api).unwrap_err() {
            ReplyFault::Reported { message, code } => (message, code.unwrap_or_default()),
            fault => (fault.to_string(), "malformed".to_owned()),
        };
        let said = |message: &str, code: &str| (message.to_owned(), code.to_owned());
        let chat = |body| fault(Api::ChatCompletions, body);
        assert_eq!(chat(r#"{"error":{"message":"x","code":"y"}}"#), said("x", "y"));
        assert_eq!(
            chat(r#"{"choices":[{"finish_reason":"error","error":{"message":"x","code":502}}]}"#),
            said("x", "502")
        );
        assert_eq!(chat(r#"{"object":"error","message":"x","code":400}"#), said("x", "400"));
        assert_eq!(
            chat(r#"{"choices":null,"base_resp":{"status_code":1008,"status_msg":"insufficient balance"}}"#),
            said("insufficient balance", "1008")
        );
        assert_eq!(chat(r#"{"detail":"Model is loading"}"#).0, "Model is loading");
        assert_eq!(fault(Api::Embeddings, r#"{"detail":[{"loc":1}]}"#).0, r#"[{"loc":1}]"#);
        assert!(chat(r#"{"choices":[{"finish_reason":"network_error"}]}"#).0.contains("network_error"));
        assert!(fault(Api::Responses, r#"{"status":"failed","output":[]}"#).0.contains("failed"));
        for api in [
            Api::ChatCompletions,
            Api::Completions,
            Api::Messages,
            Api::Responses,
            Api::Embeddings,
            Api::Moderations,
            Api::Rerank,
            Api::ImageGeneration,
            Api::ImageEdit,
            Api::Transcription,
            Api::Translation,
            Api::Speech,
        ] {
            for nothing in
                ["{}", "[]", r#"{"id":"a","usage":{"prompt_tokens":1}}"#, r#"{"choices":[],"data":null}"#, "7"]
            {
                assert_eq!(fault(api, nothing).1, "malformed", "{api:?} {nothing}");
            }
        }
    }
}
