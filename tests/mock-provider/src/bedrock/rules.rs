//! What Bedrock refuses in a request that fits its shape.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::shapes;
use crate::reply::ApiError;
use crate::{anthropic, claude};

/// Regions that may stand before a model's name, for an inference profile.
const REGIONS: [&str; 9] = ["us", "eu", "apac", "global", "jp", "au", "ca", "us-gov", "sa"];

/// A model by its id.
#[derive(Debug, Clone, Copy)]
pub struct Model<'a> {
    pub vendor: &'a str,
    pub name: &'a str,
    /// Whether the id is one of an inference profile.
    pub profile: bool,
}

impl<'a> Model<'a> {
    /// Reads an id; None if there is no such model.
    pub fn of(id: &'a str) -> Option<Self> {
        if let Some((_, resource)) = id.split_once("arn:aws").filter(|(before, _)| before.is_empty()) {
            let name = resource.rsplit('/').next()?;
            return Self::of(name).or(Some(Self { vendor: "", name, profile: true }));
        }
        let (first, rest) = id.split_once('.')?;
        let profile = REGIONS.contains(&first);
        let (vendor, name) = if profile { rest.split_once('.')? } else { (first, rest) };
        let version = name.split_once(':').is_none_or(|(_, version)| version.starts_with(|c: char| c.is_ascii_digit()));
        (version && vendor.bytes().all(|byte| byte.is_ascii_alphanumeric())).then_some(Self { vendor, name, profile })
    }

    fn is(self, vendor: &str) -> bool {
        self.vendor == vendor
    }
}

/// Reads a model's id as the API does.
pub fn model(id: &str) -> Result<Model<'_>, ApiError> {
    Model::of(id).ok_or_else(|| ApiError::invalid("The provided model identifier is invalid."))
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Checks a request to converse.
pub fn check(body: &Value, id: &str) -> Result<(), ApiError> {
    shapes::check(body, &shapes::CONVERSE)?;
    let model = model(id)?;
    check_conversation(body, model)?;
    check_tools(body, model)?;
    check_output(body)?;
    check_additional(body, model)
}

/// Checks a request to count tokens. What is to be counted may be a request of another API, in Base64.
pub fn check_count(body: &Value, id: &str) -> Result<(), ApiError> {
    shapes::check(body, &shapes::COUNT_TOKENS)?;
    let model = model(id)?;
    if !model.is("anthropic") || model.profile {
        return Err(ApiError::invalid("The provided model doesn't support counting tokens."));
    }
    if let Some(converse) = body.pointer("/input/converse") {
        check_conversation(converse, model)?;
        return check_tools(converse, model);
    }
    let inner = text(body.pointer("/input/invokeModel").unwrap_or(&Value::Null), "body");
    let inner = crate::gemini::proto::bytes(inner).unwrap_or_default();
    let inner: Value = serde_json::from_slice(&inner)
        .map_err(|_| ApiError::invalid("Malformed input request, please reformat your input and try again."))?;
    for (at, tool) in list(&inner, "tools").iter().enumerate() {
        let kind = text(tool, "type");
        if ["web_search", "web_fetch", "code_execution"].iter().any(|hosted| kind.starts_with(hosted)) {
            return Err(ApiError::invalid(format!(
                "tools.{at}: Input tag '{kind}' found using 'type' does not match any of the expected tags: \
                 'bash_20250124', 'custom', 'text_editor_20250124', 'text_editor_20250429', 'text_editor_20250728'"
            )));
        }
    }
    Ok(())
}

fn check_conversation(body: &Value, model: Model<'_>) -> Result<(), ApiError> {
    let messages = list(body, "messages");
    let leads = ["anthropic", "qwen"].contains(&model.vendor);
    match messages.first() {
        Some(first) if text(first, "role") == "user" || leads => {}
        _ => {
            return Err(ApiError::invalid(
                "A conversation must start with a user message. Try again with a conversation that starts with a user \
                 message.",
            ));
        }
    }
    let mut names = HashSet::new();
    let mut called: Vec<&str> = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        let role = text(message, "role");
        let before = at.checked_sub(1).and_then(|before| messages.get(before)).map(|message| text(message, "role"));
        if before == Some(role) {
            return Err(ApiError::invalid(
                "A conversation must alternate between user and assistant roles. Make sure the conversation alternates \
                 between user and assistant roles and try again.",
            ));
        }
        let content = list(message, "content");
        if content.is_empty() {
            return Err(ApiError::invalid(format!(
                "The content field in the Message object at messages.{at} is empty. Add a ContentBlock object to the \
                 content field and try again."
            )));
        }
        for (number, block) in content.iter().enumerate() {
            check_block(block, &format!("messages.{at}.content.{number}"), model, &mut names)?;
        }
        check_mixture(content, at, model)?;
        check_results(content, at, &called)?;
        called = content.iter().filter_map(|block| block.get("toolUse")).map(|call| text(call, "toolUseId")).collect();
        if called.iter().collect::<HashSet<_>>().len() < called.len() {
            return Err(ApiError::invalid(format!(
                "The toolUse blocks at messages.{at}.content contain duplicate Ids: {}",
                called.join(", ")
            )));
        }
    }
    let uses_tools = messages
        .iter()
        .flat_map(|message| list(message, "content"))
        .any(|block| block.get("toolUse").is_some() || block.get("toolResult").is_some());
    if uses_tools && body.get("toolConfig").is_none() {
        return Err(ApiError::invalid(
            "The toolConfig field must be defined when using toolUse and toolResult content blocks.",
        ));
    }
    Ok(())
}

fn check_block<'a>(
    block: &'a Value,
    place: &str,
    model: Model<'_>,
    names: &mut HashSet<&'a str>,
) -> Result<(), ApiError> {
    let blank = |value: &Value| value.as_str().is_some_and(|text| text.trim().is_empty());
    if block.get("text").is_some_and(blank) {
        return Err(ApiError::invalid(format!(
            "The text field in the ContentBlock object at {place} is blank. Add text to the text field, and try again."
        )));
    }
    if let Some(call) = block.get("toolUse").filter(|call| !call.get("input").is_some_and(Value::is_object)) {
        return Err(ApiError::invalid(format!(
            "The format of the value at {place}.toolUse.input is invalid. Provide a json object for the field and try \
             again: {}",
            call.get("input").unwrap_or(&Value::Null)
        )));
    }
    if let Some(result) = block.get("toolResult") {
        if result.get("status").is_some() && model.is("writer") {
            return Err(ApiError::invalid("This model doesn't support the status field. Remove status and try again."));
        }
        for (number, inner) in list(result, "content").iter().enumerate() {
            check_block(inner, &format!("{place}.toolResult.content.{number}"), model, names)?;
        }
    }
    if let Some(document) = block.get("document") {
        check_document_name(text(document, "name"))?;
        if !names.insert(text(document, "name")) {
            return Err(ApiError::invalid("Document names must be unique: the same name is used more than once."));
        }
    }
    let s3 = ["image", "document", "video"].iter().any(|kind| {
        block.get(kind).and_then(|media| media.get("source")).is_some_and(|source| source.get("s3Location").is_some())
    });
    if s3 && model.is("anthropic") {
        return Err(ApiError::invalid("This model doesn't support the s3Uri field. Remove s3Uri and try again."));
    }
    match block.pointer("/reasoningContent/reasoningText") {
        Some(reasoning) if model.is("anthropic") => check_reasoning(reasoning, place),
        _ => Ok(()),
    }
}

/// What Claude thought comes back as it was said, with its proof.
fn check_reasoning(reasoning: &Value, place: &str) -> Result<(), ApiError> {
    let told = |problem: &str| ApiError::invalid(format!("The model returned the following errors: {problem}"));
    match reasoning.get("signature").and_then(Value::as_str) {
        None => Err(told(&format!("{place}.thinking.signature: Field required"))),
        Some(given) if !anthropic::is_proof_of(given, text(reasoning, "text")) => {
            Err(told(&format!("{place}: Invalid `signature` in `thinking` block")))
        }
        Some(_) => Ok(()),
    }
}

/// Underscores pass, although the refusal does not list them.
fn check_document_name(name: &str) -> Result<(), ApiError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || " -()[]_".contains(c);
    if name.chars().all(fits) && !name.contains("  ") {
        return Ok(());
    }
    Err(ApiError::invalid(
        "The document file name can only contain alphanumeric characters, whitespace characters, hyphens, parentheses, \
         and square brackets. The name can't contain more than one consecutive whitespace character. Check that the \
         file name conforms to these restrictions and retry your request.",
    ))
}

/// What may stand in one turn.
fn check_mixture(content: &[Value], at: usize, model: Model<'_>) -> Result<(), ApiError> {
    let has = |kind: &str| content.iter().any(|block| block.get(kind).is_some());
    if has("document") && !has("text") {
        return Err(ApiError::invalid(format!(
            "A text block is required beside the documents at messages.{at}.content. Add a text block and try again."
        )));
    }
    if !has("toolResult") {
        return Ok(());
    }
    let alone = content.iter().all(|block| block.get("toolResult").is_some() || block.get("cachePoint").is_some());
    let refused = match model.vendor {
        "meta" | "mistral" => !alone,
        "anthropic" => has("document") || has("video"),
        _ => false,
    };
    if refused {
        return Err(ApiError::invalid(format!(
            "This model doesn't support other content beside toolResult blocks at messages.{at}.content. Move it to \
             another turn and try again."
        )));
    }
    Ok(())
}

/// Results answer the calls of the turn before, all of them.
fn check_results(content: &[Value], at: usize, called: &[&str]) -> Result<(), ApiError> {
    let results: Vec<&str> =
        content.iter().filter_map(|block| block.get("toolResult")).map(|result| text(result, "toolUseId")).collect();
    let missing: Vec<&str> = called.iter().copied().filter(|id| !results.contains(id)).collect();
    if !missing.is_empty() {
        return Err(ApiError::invalid(format!(
            "Expected toolResult blocks at messages.{at}.content for the following Ids: {}",
            missing.join(", ")
        )));
    }
    if results.len() > called.len() {
        return Err(ApiError::invalid(format!(
            "The number of toolResult blocks at messages.{at}.content exceeds the number of toolUse blocks of previous \
             turn."
        )));
    }
    Ok(())
}

fn check_tools(body: &Value, model: Model<'_>) -> Result<(), ApiError> {
    let Some(config) = body.get("toolConfig") else {
        return Ok(());
    };
    let names: Vec<&str> =
        list(config, "tools").iter().filter_map(|tool| tool.get("toolSpec")).map(|tool| text(tool, "name")).collect();
    if let Some(name) = names.iter().enumerate().find_map(|(at, name)| names.get(..at)?.contains(name).then_some(name))
    {
        return Err(ApiError::invalid(format!("The tool {name} is already defined at toolConfig.tools.")));
    }
    for (at, tool) in list(config, "tools").iter().enumerate() {
        let schema = tool.pointer("/toolSpec/inputSchema/json");
        if schema.is_some_and(|schema| text(schema, "type") != "object") {
            return Err(ApiError::invalid(format!(
                "The value at toolConfig.tools.{at}.toolSpec.inputSchema.json.type must be one of the following: object."
            )));
        }
    }
    let Some(choice) = config.get("toolChoice").and_then(Value::as_object).and_then(|choice| choice.keys().next())
    else {
        return Ok(());
    };
    let unable = ["meta", "cohere", "ai21"].contains(&model.vendor);
    if unable && choice != "auto" {
        return Err(ApiError::invalid(format!(
            "This model doesn't support the toolConfig.toolChoice.{choice} field. Remove toolConfig.toolChoice.{choice} \
             and try again."
        )));
    }
    let named = config.pointer("/toolChoice/tool/name").and_then(Value::as_str);
    match named.filter(|named| !names.contains(named)) {
        Some(named) => Err(ApiError::invalid(format!(
            "The toolConfig.toolChoice.tool.name value {named} is not one of the tools in toolConfig.tools."
        ))),
        None => Ok(()),
    }
}

/// The schema of the answer is JSON, as a text.
fn check_output(body: &Value) -> Result<(), ApiError> {
    let schema = body.pointer("/outputConfig/textFormat/structure/jsonSchema/schema").and_then(Value::as_str);
    match schema.map(serde_json::from_str::<Value>) {
        None | Some(Ok(Value::Object(_))) => Ok(()),
        Some(_) => Err(ApiError::invalid(
            "The value at outputConfig.textFormat.structure.jsonSchema.schema is not a valid JSON schema.",
        )),
    }
}

/// What goes to the model past the common members.
fn check_additional(body: &Value, model: Model<'_>) -> Result<(), ApiError> {
    let none = Map::new();
    let map = match body.get("additionalModelRequestFields") {
        None | Some(Value::Null) => &none,
        Some(Value::Object(map)) => map,
        Some(_) => {
            return Err(ApiError::invalid("The value at additionalModelRequestFields must be a JSON object."));
        }
    };
    let known: &[&str] = match model.vendor {
        "anthropic" => &[
            "top_k",
            "thinking",
            "output_config",
            "anthropic_beta",
            "tools",
            "tool_choice",
            "metadata",
            "context_management",
        ],
        "amazon" => &["inferenceConfig", "reasoningConfig", "topK"],
        _ => return Ok(()),
    };
    if let Some(key) = map.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(ApiError::invalid(format!(
            "The model returned the following errors: Malformed input request: #: extraneous key [{key}] is not \
             permitted, please reformat your input and try again."
        )));
    }
    if !model.is("anthropic") {
        return Ok(());
    }
    let inference = body.get("inferenceConfig").unwrap_or(&Value::Null);
    let sampling =
        [("temperature", inference.get("temperature")), ("top_p", inference.get("topP")), ("top_k", map.get("top_k"))];
    let forced = body.pointer("/toolConfig/toolChoice").is_some_and(|choice| choice.get("auto").is_none());
    let wishes = claude::Wishes {
        model: model.name,
        thinking: map.get("thinking"),
        effort: map.get("output_config").and_then(|config| config.get("effort")),
        max_tokens: inference.get("maxTokens").and_then(Value::as_u64),
        sampling: &sampling,
        forced,
    };
    let last = list(body, "messages").last().map_or("", |message| text(message, "role"));
    claude::check(&wishes).and_then(|()| claude::check_prefill(model.name, last)).map_err(|error| ApiError {
        message: format!("The model returned the following errors: {}", error.message),
        ..error
    })
}
