//! Each row of the translation, and that nothing goes out which the service is known to refuse.

mod replies;
mod requests;
mod rules;

use serde_json::{Value, json};

use super::*;
use crate::config::{Model, StructuredOutput};
use crate::protocol::chat::{
    CacheMark, Function, List, Message, Part, PartBody, Place, Role, Source, Tool, ToolBody, Within,
};

const CLAUDE: &str = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";
const NEWEST: &str = "global.anthropic.claude-opus-4-7";
const FABLE: &str = "anthropic.claude-fable-5";
const NOVA: &str = "us.amazon.nova-pro-v1:0";
const NOVA_2: &str = "us.amazon.nova-2-lite-v1:0";
const LLAMA: &str = "us.meta.llama4-maverick-17b-instruct-v1:0";
const MISTRAL: &str = "us.mistral.pixtral-large-2502-v1:0";
const PALMYRA: &str = "us.writer.palmyra-x5-v1:0";
const QWEN: &str = "qwen.qwen3-32b-v1:0";
const GPT_OSS: &str = "openai.gpt-oss-120b-1:0";
const MODELS: &[&str] = &[
    CLAUDE,
    NEWEST,
    FABLE,
    NOVA,
    NOVA_2,
    LLAMA,
    MISTRAL,
    PALMYRA,
    QWEN,
    GPT_OSS,
    "anthropic.claude-sonnet-4-6",
    "anthropic.claude-3-haiku-20240307-v1:0",
    "moonshotai.kimi-k2.5",
    "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/ab12",
];

fn provider() -> Provider {
    serde_json::from_value(json!({"dialect": "generic", "base_url": "https://bedrock.example"})).unwrap()
}

fn target<'a>(provider: &'a Provider, model: &'a str, structured_output: StructuredOutput) -> Target<'a> {
    Target {
        provider,
        upstream_model: model,
        max_output_tokens: Model::MAX_OUTPUT_TOKENS,
        structured_output,
        strict_params: false,
    }
}

/// The body, which the service takes, and what was dropped.
#[expect(clippy::panic_in_result_fn, reason = "the error is the translation's")]
fn sent_as(chat: &ChatRequest, model: &str, form: StructuredOutput) -> Result<(Value, Vec<String>), Problem> {
    let provider = provider();
    let mut notes = Notes::new(chat.origin, false);
    let request = Bedrock.translate(chat, target(&provider, model, form), &mut notes)?;
    let body = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(rules::violations(model, &body), Vec::<String>::new(), "{model}: {body:#}");
    Ok((body, notes.into_dropped()))
}

fn sent(chat: &ChatRequest, model: &str) -> (Value, Vec<String>) {
    sent_as(chat, model, StructuredOutput::Native).unwrap()
}

fn body(chat: &ChatRequest, model: &str) -> Value {
    sent(chat, model).0
}

/// What is refused and where.
fn refused(chat: &ChatRequest, model: &str) -> (String, String) {
    let problem = sent_as(chat, model, StructuredOutput::Native).unwrap_err();
    let param = problem.param.unwrap();
    assert_eq!((problem.status, problem.message.starts_with(&param)), (400, true), "{}", problem.message);
    (param, problem.message)
}

fn chat(messages: Vec<(Role, Vec<PartBody>)>) -> ChatRequest {
    let mut chat = ChatRequest::new(Api::ChatCompletions, "m".to_owned());
    for (nth, (role, parts)) in messages.into_iter().enumerate() {
        let at = Place::item(List::Messages, nth);
        let parts = parts.into_iter().enumerate();
        let parts = parts.map(|(nth, body)| Part { body, cache: None, at: at.within(Within::Part(nth as u32)) });
        chat.messages.push(Message { role, parts: parts.collect(), name: None, at });
    }
    chat
}

/// A request that asks one question.
fn asked() -> ChatRequest {
    chat(vec![(Role::User, vec![text("hi")])])
}

fn text(text: &str) -> PartBody {
    PartBody::Text { text: text.to_owned(), signature: None }
}

fn call(id: &str, arguments: &str) -> PartBody {
    let (id, name) = (id.to_owned(), "f".to_owned());
    PartBody::Call { id, name, arguments: arguments.to_owned(), custom: false, signature: None }
}

fn part(body: PartBody) -> Part {
    Part { body, cache: None, at: Place::item(List::Messages, 0) }
}

fn result(id: &str, parts: Vec<PartBody>, is_error: bool) -> PartBody {
    PartBody::Result { id: id.to_owned(), name: None, parts: parts.into_iter().map(part).collect(), is_error }
}

fn inline(media_type: &str) -> Source {
    Source::Base64 { media_type: media_type.to_owned(), data: "AAAA".to_owned() }
}

fn image() -> PartBody {
    PartBody::Image { source: inline("image/png"), detail: None }
}

fn document(name: &str) -> PartBody {
    let name = Some(name.to_owned());
    PartBody::Document { source: inline("application/pdf"), name, context: None, cite: false }
}

fn mark(ttl: &str) -> Option<CacheMark> {
    Some(CacheMark(json!({"type": "ephemeral", "ttl": ttl})))
}

fn tool(name: &str) -> Tool {
    let parameters = Some(json!({"properties": {}}));
    let function = Function { name: name.to_owned(), description: Some(String::new()), parameters, strict: None };
    Tool { body: ToolBody::Function(function), cache: None, at: Place::item(List::Tools, 0) }
}
