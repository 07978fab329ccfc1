//! The body of a request.

use serde_json::{Map, Value, json};

use super::family::Age;
use super::{Host, Wire, contents, tools};
use crate::config::StructuredOutput;
use crate::error::Problem;
use crate::protocol::chat::{ChatRequest, Effort, Format, Reasoning, ThinkMode};
use crate::providers::families::{SwitchedOff, Taken, Traits};
use crate::providers::notes::{Notes, Param};
use crate::providers::schema::{Subset, fit};

/// The header that asks Vertex for a service tier.
const VERTEX_TIER: &str = "x-vertex-ai-llm-shared-request-type";

/// What there is in some form.
const HAS: &[Param] = &[
    Param::N,
    Param::Logprobs,
    Param::Modalities,
    Param::Temperature,
    Param::TopP,
    Param::TopK,
    Param::PresencePenalty,
    Param::FrequencyPenalty,
    Param::Seed,
    Param::Stop,
    Param::Metadata,
    Param::ServiceTier,
    Param::ReasoningSummary,
    Param::Citations,
    Param::Strict,
];

/// What models do not take that set their sampling themselves.
const SAMPLING: &[Param] =
    &[Param::Temperature, Param::TopP, Param::TopK, Param::PresencePenalty, Param::FrequencyPenalty];

/// Members of Google's own.
const EXTRAS: &[&str] = &["google", "safety_settings", "safetySettings", "cached_content", "cachedContent"];

/// The body and headers of a request.
///
/// # Errors
/// A 400 naming what cannot be carried over.
pub(super) fn write(
    chat: &ChatRequest,
    wire: Wire,
    structured: StructuredOutput,
    notes: &mut Notes,
) -> Result<(Value, Vec<(String, String)>), Problem> {
    // Only newer models take a schema for the answer beside tools.
    let by_tool =
        structured == StructuredOutput::Tool || (wire.family.age < Age::Three && !chat.tools.offered.is_empty());
    let by_tool = if by_tool { notes.answer_by_tool(chat)? } else { None };
    let chat = by_tool.as_ref().unwrap_or(chat);

    notes.unsupported(chat, HAS, EXTRAS)?;
    let mut body = Map::new();
    let conversation = contents::write(chat, wire, notes)?;
    body.insert("contents".to_owned(), conversation.contents.into());
    if !conversation.instructions.is_empty() {
        body.insert("systemInstruction".to_owned(), json!({"parts": conversation.instructions}));
    }
    tools::write(chat, wire, notes, &mut body)?;
    let config = generation_config(chat, wire, notes)?;
    if !config.is_empty() {
        body.insert("generationConfig".to_owned(), config.into());
    }
    let mut headers = Vec::new();
    caller(chat, wire, notes, &mut body, &mut headers)?;
    extras(chat, &mut body)?;
    Ok((Value::Object(body), headers))
}

fn put(map: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        map.insert(name.to_owned(), value.into());
    }
}

fn generation_config(chat: &ChatRequest, wire: Wire, notes: &mut Notes) -> Result<Map<String, Value>, Problem> {
    let (sampling, output) = (&chat.sampling, &chat.output);
    let mut config = Map::new();
    put(&mut config, "maxOutputTokens", output.max_tokens);
    if wire.family.traits.sampling == Taken::Never {
        notes.lacking(chat, SAMPLING)?;
    } else {
        put(&mut config, "temperature", sampling.temperature);
        put(&mut config, "topP", sampling.top_p);
        put(&mut config, "topK", sampling.top_k);
        put(&mut config, "presencePenalty", sampling.presence_penalty);
        put(&mut config, "frequencyPenalty", sampling.frequency_penalty);
    }
    put(&mut config, "seed", sampling.seed.map(small_seed));
    put(&mut config, "stopSequences", (!sampling.stop.is_empty()).then(|| sampling.stop.clone()));
    put(&mut config, "candidateCount", sampling.n.filter(|n| *n != 1));
    if sampling.logprobs == Some(true) {
        config.insert("responseLogprobs".to_owned(), true.into());
        put(&mut config, "logprobs", sampling.top_logprobs.filter(|top| *top > 0));
    }
    answer_format(chat, wire, notes, &mut config)?;
    modalities(chat, notes, &mut config)?;
    let thinking = thinking(&chat.reasoning, wire.family.traits, notes)?;
    if !thinking.is_empty() {
        config.insert("thinkingConfig".to_owned(), thinking.into());
    }
    Ok(config)
}

/// Seeds have 32 bits here. Folding a longer one keeps what it is for: the same seed stays the same.
fn small_seed(seed: i64) -> i64 {
    if i32::try_from(seed).is_ok() { seed } else { seed.rem_euclid(i64::from(i32::MAX)) }
}

fn answer_format(
    chat: &ChatRequest,
    wire: Wire,
    notes: &mut Notes,
    config: &mut Map<String, Value>,
) -> Result<(), Problem> {
    let has_tools = !chat.tools.offered.is_empty();
    match &chat.output.format {
        Format::Text => return Ok(()),
        // Older models refuse it beside tools.
        Format::JsonObject if has_tools && wire.family.age < Age::Three => return notes.drop(Param::ResponseFormat),
        Format::JsonObject => {}
        Format::Schema { schema, .. } => {
            let (member, subset) = match wire.family.age {
                Age::Old => ("responseSchema", Subset::OpenApi),
                _ => ("responseJsonSchema", Subset::GeminiJson),
            };
            let fitted = fit(schema, subset)
                .map_err(|fault| notes.refuse(Param::ResponseFormat, &format!("the schema at {fault}.")))?;
            config.insert(member.to_owned(), fitted);
        }
    }
    config.insert("responseMimeType".to_owned(), "application/json".into());
    Ok(())
}

fn modalities(chat: &ChatRequest, notes: &mut Notes, config: &mut Map<String, Value>) -> Result<(), Problem> {
    let asked = |kind: &str| chat.output.modalities.iter().any(|asked| asked.eq_ignore_ascii_case(kind));
    // Models that speak say nothing in writing beside it.
    let kinds: Vec<&str> = match (asked("audio"), asked("image")) {
        (true, _) => vec!["AUDIO"],
        (false, true) if asked("text") => vec!["TEXT", "IMAGE"],
        (false, true) => vec!["IMAGE"],
        (false, false) => return Ok(()),
    };
    if let (true, Some(audio)) = (asked("audio"), &chat.output.audio) {
        if let Some(voice) = audio.get("voice").and_then(Value::as_str) {
            let voice = json!({"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": voice}}});
            config.insert("speechConfig".to_owned(), voice);
        }
        if audio.get("format").and_then(Value::as_str).is_some_and(|format| format != "pcm16") {
            notes.drop_named("audio.format")?;
        }
    }
    config.insert("responseModalities".to_owned(), json!(kinds));
    Ok(())
}

/// How much to think. Thoughts are shown to whoever asks for them to be made.
fn thinking(asked: &Reasoning, traits: &Traits, notes: &mut Notes) -> Result<Map<String, Value>, Problem> {
    let mut config = Map::new();
    let off = (asked.mode == Some(ThinkMode::Disabled)).then_some(Effort::None);
    let effort = asked.effort.or(off);
    let budget = asked.budget_tokens.filter(|_| off.is_none());
    let wants_some = effort.is_some_and(|effort| effort != Effort::None)
        || (off.is_none() && (budget.is_some_and(|tokens| tokens > 0) || asked.mode.is_some()));
    if traits.thinking_level {
        let effort = effort.or_else(|| budget.map(Effort::of_budget));
        put(&mut config, "thinkingLevel", effort.and_then(|effort| traits.effort(effort)));
    } else if let Some((least, most)) = traits.budgets {
        let tokens = match (budget, effort) {
            (Some(0), _) if traits.switched_off == SwitchedOff::Always => Some(0),
            (Some(0), _) => Some(least),
            (Some(tokens), _) => Some(clamped(tokens, least, most, notes)?),
            (None, effort) => effort.and_then(|effort| traits.budget(effort)),
        };
        // As much as the model sees fit.
        let dynamic = budget.is_none() && effort == Some(Effort::Max);
        put(&mut config, "thinkingBudget", if dynamic { Some((-1).into()) } else { tokens.map(Value::from) });
    } else {
        if wants_some {
            notes.drop(if asked.effort.is_some() { Param::ReasoningEffort } else { Param::Thinking })?;
        }
        return Ok(config);
    }
    if wants_some || (asked.summary.is_some() && effort != Some(Effort::None)) {
        config.insert("includeThoughts".to_owned(), true.into());
    }
    Ok(config)
}

fn clamped(tokens: u64, least: u64, most: u64, notes: &mut Notes) -> Result<u64, Problem> {
    let within = tokens.clamp(least, most);
    // Small numbers, which are exact as floats; what is far beyond needs no precision to be noted.
    let float = |tokens: u64| f64::from(u32::try_from(tokens).unwrap_or(u32::MAX));
    notes.clamp(Param::Thinking, float(tokens), float(least), float(most))?;
    Ok(within)
}

/// What is said of the caller.
fn caller(
    chat: &ChatRequest,
    wire: Wire,
    notes: &mut Notes,
    body: &mut Map<String, Value>,
    headers: &mut Vec<(String, String)>,
) -> Result<(), Problem> {
    match (chat.caller.service_tier.as_deref(), wire.host) {
        (None | Some("auto"), _) | (Some("default" | "standard" | "standard_only"), Host::Vertex) => {}
        (Some("default" | "standard" | "standard_only"), Host::GeminiApi) => {
            body.insert("serviceTier".to_owned(), "standard".into());
        }
        (Some(tier @ ("flex" | "priority")), Host::GeminiApi) => _ = body.insert("serviceTier".to_owned(), tier.into()),
        (Some(tier @ ("flex" | "priority")), Host::Vertex) => headers.push((VERTEX_TIER.to_owned(), tier.to_owned())),
        (Some(_), _) => notes.drop(Param::ServiceTier)?,
    }
    let Some(metadata) = &chat.caller.metadata else { return Ok(()) };
    // The Gemini API has no labels.
    let fits = |(name, value): &(&String, &Value)| wire.host == Host::Vertex && is_label(name, value);
    let labels: Map<String, Value> =
        metadata.iter().filter(fits).take(MAX_LABELS).map(|(name, value)| (name.clone(), value.clone())).collect();
    if labels.len() < metadata.len() {
        notes.drop(Param::Metadata)?;
    }
    if !labels.is_empty() {
        body.insert("labels".to_owned(), labels.into());
    }
    Ok(())
}

/// The most labels that Vertex takes.
const MAX_LABELS: usize = 64;

/// Vertex refuses a request for a label of another form; metadata is no reason to fail.
fn is_label(name: &str, value: &Value) -> bool {
    let plain = |text: &str| {
        text.len() <= 63
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte))
    };
    name.starts_with(|first: char| first.is_ascii_lowercase()) && plain(name) && value.as_str().is_some_and(plain)
}

/// Members of Google's own.
fn extras(chat: &ChatRequest, body: &mut Map<String, Value>) -> Result<(), Problem> {
    for (name, value) in &chat.extra {
        match (name.as_str(), value) {
            (_, Value::Null) => {}
            ("safety_settings" | "safetySettings" | "cached_content" | "cachedContent", _) => {
                body.insert(camel(name), value.clone());
            }
            ("google", Value::Object(own)) => {
                for (name, value) in own {
                    let at = format!("google.{name}");
                    match camel(name).as_str() {
                        "contents" | "model" => {
                            return Err(Problem::invalid(
                                &at,
                                format!("{at}: say it as the rest of the request does."),
                            ));
                        }
                        "thinkingConfig" => merge(body, "generationConfig", &json!({"thinkingConfig": value})),
                        name => merge(body, name, value),
                    }
                }
            }
            ("google", _) => return Err(Problem::invalid("google", "google: must be an object.")),
            _ => {}
        }
    }
    Ok(())
}

/// Sets a member. Objects are put together, lists appended: what the rest of the request says stays.
fn merge(into: &mut Map<String, Value>, name: &str, value: &Value) {
    match (into.get_mut(name), value) {
        (Some(Value::Object(known)), Value::Object(more)) => {
            let names_are_ours = matches!(name, "generationConfig" | "toolConfig" | "thinkingConfig");
            for (name, value) in more {
                merge(known, &if names_are_ours { camel(name) } else { name.clone() }, value);
            }
        }
        (Some(Value::Array(known)), Value::Array(more)) => known.extend(more.iter().cloned()),
        _ => _ = into.insert(name.to_owned(), value.clone()),
    }
}

/// Both spellings of a member are taken, but not both at once.
fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}
