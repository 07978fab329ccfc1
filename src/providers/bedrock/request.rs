//! A chat request as a Converse request.

use serde_json::{Map, Value, json};

use super::conversation::Conversation;
use super::model::{Model, TopK};
use super::reasoning::{self, Effect};
use super::{media, tools};
use crate::config::StructuredOutput;
use crate::error::Problem;
use crate::protocol::chat::{CallerFacts, ChatRequest, Format};
use crate::providers::Target;
use crate::providers::notes::{Notes, Param};
use crate::providers::schema::claude_can_follow;

/// Parameters that the API has in some form.
const HAS: &[Param] = &[
    Param::Temperature,
    Param::TopP,
    Param::TopK,
    Param::Stop,
    Param::Metadata,
    Param::ServiceTier,
    Param::CacheControl,
    Param::ReasoningSummary,
    Param::Citations,
    Param::Strict,
];

/// Members of the API that callers of any dialect may send, by its own names or as the others are written.
const EXTRAS: &[&str] = &[
    "guardrail_config",
    "guardrailConfig",
    "performance_config",
    "performanceConfig",
    "additional_model_request_fields",
    "additionalModelRequestFields",
];

/// The path below the base URL. An ARN has slashes, which must not divide the path.
pub(super) fn path(model: &str, stream: bool) -> String {
    model_path(model, if stream { "converse-stream" } else { "converse" })
}

/// The path of something that is asked of a model.
pub(in crate::providers) fn model_path(model: &str, what: &str) -> String {
    let mut path = String::from("/model/");
    for byte in model.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => path.push(char::from(byte)),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path.push('/');
    path.push_str(what);
    path
}

/// The body.
pub(super) fn body(chat: &ChatRequest, target: Target<'_>, notes: &mut Notes) -> Result<Value, Problem> {
    let model = Model::of(target.upstream_model);
    notes.unsupported(chat, HAS, EXTRAS)?;
    if chat.tools.parallel == Some(false) && !chat.tools.offered.is_empty() {
        notes.drop(Param::ParallelToolCalls)?;
    }
    let can_follow = match &chat.output.format {
        Format::Schema { schema, .. } => claude_can_follow(schema),
        _ => true,
    };
    let native = target.structured_output == StructuredOutput::Native && model.follows_schemas() && can_follow;
    let in_place = if native { None } else { notes.answer_by_tool(chat)? };
    let answers_by_tool = in_place.is_some();
    let chat = in_place.as_ref().unwrap_or(chat);
    let mut conversation = Conversation::of(chat, model, notes)?;
    let mut tools = tools::Tools::of(chat, model, answers_by_tool, notes)?;
    conversation.limit_marks(&mut tools.offered);

    let mut body = Map::new();
    let mut fields = Map::new();
    if chat.output.format == Format::JsonObject {
        let instruction = "Answer with one valid JSON object and nothing else: no prose, no code fence.";
        conversation.system.push(json!({"text": instruction}));
    } else if let Format::Schema { name, description, schema, .. } = &chat.output.format {
        // The schema goes as text.
        let mut definition =
            json!({"schema": tools::exact(schema, Param::ResponseFormat.name(chat.origin))?.to_string()});
        for (member, value) in [("name", name), ("description", description)] {
            if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
                media::insert(&mut definition, member, value.into());
            }
        }
        let format = json!({"type": "json_schema", "structure": {"jsonSchema": definition}});
        body.insert("outputConfig".to_owned(), json!({"textFormat": format}));
    }
    let effect = reasoning::set(chat, model, tools.is_forced(), conversation.has_begun_answer(), &mut fields, notes)?;
    let inference = inference(chat, model, effect, &mut fields, notes)?;
    if !inference.is_empty() {
        body.insert("inferenceConfig".to_owned(), inference.into());
    }
    if inference_has_stops(&body) && model.tells_stop_sequence() {
        // Where it stands depends on whether the reply is streamed; a path that leads nowhere is passed over.
        let paths = json!(["/stop_sequence", "/delta/stop_sequence"]);
        body.insert("additionalModelResponseFieldPaths".to_owned(), paths);
    }
    let (system, messages) = conversation.into_messages();
    if !system.is_empty() {
        body.insert("system".to_owned(), system.into());
    }
    body.insert("messages".to_owned(), messages.into());
    if let Some(config) = tools.into_config() {
        body.insert("toolConfig".to_owned(), config);
    }
    caller_facts(&chat.caller, &mut body, notes)?;
    extras(&chat.extra, &mut body, &mut fields)?;
    if !fields.is_empty() {
        body.insert("additionalModelRequestFields".to_owned(), fields.into());
    }
    Ok(Value::Object(body))
}

fn inference(
    chat: &ChatRequest,
    model: Model<'_>,
    effect: Effect,
    fields: &mut Map<String, Value>,
    notes: &mut Notes,
) -> Result<Map<String, Value>, Problem> {
    let sampling = &chat.sampling;
    let mut inference = Map::new();
    match chat.output.max_tokens {
        Some(_) if effect.refuses_limits => notes.drop(Param::MaxTokens)?,
        Some(most) => {
            inference.insert("maxTokens".to_owned(), most.into());
        }
        // Without a number the model goes on to its own limit.
        None => {}
    }
    let refuses_sampling = effect.refuses_limits || effect.refuses_sampling || model.refuses_sampling();
    // One is what these models take for granted.
    let says_something = |value: &f64| !(refuses_sampling && *value == 1.0);
    let temperature = sampling.temperature.filter(says_something);
    match temperature {
        Some(_) if refuses_sampling => notes.drop(Param::Temperature)?,
        Some(temperature) => {
            let temperature = notes.clamp(Param::Temperature, temperature, 0.0, 1.0)?;
            inference.insert("temperature".to_owned(), temperature.into());
        }
        None => {}
    }
    let alone = model.takes_one_of_temperature_and_top_p();
    match sampling.top_p.filter(|top_p| !(alone && *top_p == 1.0)).filter(says_something) {
        Some(_) if refuses_sampling || (alone && temperature.is_some()) => notes.drop(Param::TopP)?,
        Some(top_p) => {
            inference.insert("topP".to_owned(), top_p.into());
        }
        None => {}
    }
    match (sampling.top_k, model.top_k()) {
        (None, _) => {}
        (Some(_), TopK::Flat) if refuses_sampling => notes.drop(Param::TopK)?,
        (Some(top_k), TopK::Flat) => {
            fields.insert("top_k".to_owned(), top_k.into());
        }
        (Some(top_k), TopK::Nested) => {
            fields.insert("inferenceConfig".to_owned(), json!({"topK": top_k}));
        }
        (Some(_), TopK::Nowhere) => notes.drop(Param::TopK)?,
    }
    let takes = |text: &&String| !if model.refuses_blank_stops() { text.trim().is_empty() } else { text.is_empty() };
    let stops: Vec<&String> = sampling.stop.iter().filter(takes).collect();
    if stops.len() < sampling.stop.len() {
        notes.drop(Param::Stop)?;
    }
    if !stops.is_empty() {
        inference.insert("stopSequences".to_owned(), json!(stops));
    }
    Ok(inference)
}

fn inference_has_stops(body: &Map<String, Value>) -> bool {
    body.get("inferenceConfig").is_some_and(|inference| inference.get("stopSequences").is_some())
}

fn caller_facts(caller: &CallerFacts, body: &mut Map<String, Value>, notes: &mut Notes) -> Result<(), Problem> {
    match caller.service_tier.as_deref() {
        None | Some("auto") => {}
        Some(tier @ ("priority" | "default" | "flex" | "reserved")) => {
            body.insert("serviceTier".to_owned(), json!({"type": tier}));
        }
        Some("standard_only") => {
            body.insert("serviceTier".to_owned(), json!({"type": "default"}));
        }
        Some(_) => notes.drop(Param::ServiceTier)?,
    }
    if let Some(metadata) = caller.metadata.as_ref().filter(|metadata| !metadata.is_empty()) {
        let is_plain = |text: &str, least: usize| {
            (least..=256).contains(&text.len())
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || c.is_ascii_whitespace() || ":_@$#=/+,-.".contains(c))
        };
        let fits = |(key, value): (&String, &Value)| {
            is_plain(key, 1) && value.as_str().is_some_and(|value| is_plain(value, 0))
        };
        if metadata.len() <= 16 && metadata.iter().all(fits) {
            body.insert("requestMetadata".to_owned(), metadata.clone().into());
        } else {
            notes.drop(Param::Metadata)?;
        }
    }
    Ok(())
}

/// What the caller has sent by the API's own names.
fn extras(
    extra: &Map<String, Value>,
    body: &mut Map<String, Value>,
    fields: &mut Map<String, Value>,
) -> Result<(), Problem> {
    for (name, value) in extra {
        let member = match name.as_str() {
            "guardrail_config" | "guardrailConfig" => "guardrailConfig",
            "performance_config" | "performanceConfig" => "performanceConfig",
            "additional_model_request_fields" | "additionalModelRequestFields" => {
                let Value::Object(own) = value else {
                    return Err(Problem::invalid(name, format!("{name}: must be an object.")));
                };
                fields.extend(own.clone());
                continue;
            }
            _ => continue,
        };
        body.insert(member.to_owned(), value.clone());
    }
    Ok(())
}
