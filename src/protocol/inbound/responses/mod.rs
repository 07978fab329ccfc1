//! OpenAI's Responses API, as far as it needs nothing that was kept of earlier responses.

mod body;
mod item;
mod read;
mod stream;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

use super::{BodyWriter, Echo, Inbound, ReplyIdentity, StreamWriter};
use crate::error::Problem;
use crate::protocol::chat::{ChatRequest, Effort, ToolChoice};
use crate::protocol::{Api, responses as wire};

/// The dialect.
#[derive(Debug)]
pub struct Responses;

impl Inbound for Responses {
    fn api(&self) -> Api {
        Api::Responses
    }

    fn read(&self, body: &[u8]) -> Result<ChatRequest, Problem> {
        read::read(body)
    }

    fn echo(&self, chat: &ChatRequest) -> Echo {
        Echo {
            include_usage: true,
            members: repeated(chat),
            reasoning_proofs: chat.reasoning.include_encrypted,
            ..Echo::default()
        }
    }

    fn stream(&self, identity: ReplyIdentity, echo: Echo) -> Box<dyn StreamWriter> {
        Box::new(stream::Writer::new(identity, echo))
    }

    fn whole(&self, identity: ReplyIdentity, echo: Echo) -> Box<dyn BodyWriter> {
        Box::new(body::Body(stream::Writer::collecting(identity, echo)))
    }
}

/// What a response repeats of its request; what the caller left out has OpenAI's defaults where SDKs insist on a value.
fn repeated(chat: &ChatRequest) -> Map<String, Value> {
    let instructions: Vec<&str> = chat.instructions.iter().map(|part| part.text.as_str()).collect();
    let (sampling, caller) = (&chat.sampling, &chat.caller);
    let tools: Vec<Value> = chat.tools.offered.iter().map(|tool| wire::tool(&tool.body)).collect();
    let choice = chat.tools.choice.as_ref().unwrap_or(&ToolChoice::Auto);
    let members = json!({
        "background": false,
        "instructions": (!instructions.is_empty()).then(|| instructions.join("\n")),
        "max_output_tokens": chat.output.max_tokens,
        "metadata": caller.metadata.clone().unwrap_or_default(),
        "parallel_tool_calls": chat.tools.parallel.unwrap_or(true),
        "previous_response_id": null,
        "prompt_cache_key": caller.prompt_cache_key,
        "reasoning": {
            "effort": chat.reasoning.effort.map(Effort::as_str),
            "summary": chat.reasoning.summary,
        },
        "safety_identifier": caller.safety_identifier,
        "service_tier": caller.service_tier,
        "store": false,
        "temperature": sampling.temperature,
        "text": {
            "format": wire::format(&chat.output.format),
            "verbosity": chat.output.verbosity.as_deref().unwrap_or("medium"),
        },
        "tool_choice": wire::tool_choice(choice, &chat.tools.offered),
        "tools": tools,
        "top_logprobs": sampling.top_logprobs.unwrap_or(0),
        "top_p": sampling.top_p,
        "truncation": "disabled",
        "user": caller.user,
    });
    match members {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}
