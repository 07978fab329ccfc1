//! What Google refuses in a request whose members are all known.

use std::collections::HashSet;

use serde_json::Value;

use super::proto::{self, Host, Message, elements, member};
use crate::answer::fnv;
use crate::reply::ApiError;

/// How this provider's own proofs of reasoning begin, once decoded.
const PROOF: &[u8] = b"mock-proof-";
/// How an id begins of a call whose proof is demanded back whatever the model.
pub const PROVEN_ID: &str = "proven_";
/// What stands for a proof that was lost.
const SENTINEL: &[u8] = b"skip_thought_signature_validator";
/// The members of a part of which there must be one.
const DATA: [&str; 9] = [
    "text",
    "inline_data",
    "function_call",
    "function_response",
    "file_data",
    "executable_code",
    "code_execution_result",
    "tool_call",
    "tool_response",
];

/// The proof of a call.
pub fn proof(name: &str, args: &Value) -> Vec<u8> {
    let hash = fnv(fnv(11, name.as_bytes()), canonical(args).as_bytes());
    [PROOF, format!("{hash:016x}").as_bytes()].concat()
}

/// JSON with its members in order.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut members: Vec<String> = fields.iter().map(|(k, v)| format!("{k:?}:{}", canonical(v))).collect();
            members.sort();
            members.concat()
        }
        Value::Array(items) => items.iter().map(canonical).collect::<Vec<_>>().join(","),
        scalar => scalar.to_string(),
    }
}

/// What is known of a model by its name.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    version: f64,
    pro: bool,
    gemma: bool,
    flash_37: bool,
}

impl Family {
    pub fn of(model: &str) -> Self {
        let model = model.to_ascii_lowercase();
        let version = model.split("gemini-").nth(1).map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            rest.get(..end).and_then(|version| version.parse().ok()).unwrap_or(3.0)
        });
        Self {
            // What is no Gemini is taken for what is least particular.
            version: version.unwrap_or(2.5),
            pro: model.contains("-pro"),
            gemma: model.contains("gemma"),
            flash_37: model.contains("gemini-3.7-flash"),
        }
    }

    /// Whether calls have to come back with their proofs.
    pub fn demands_proofs(self) -> bool {
        self.version >= 3.0
    }
}

/// Checks a request to generate.
pub fn check(body: &Value, model: &str, host: Host) -> Result<(), ApiError> {
    proto::check(body, &proto::GENERATE, host)?;
    let family = Family::of(model);
    let contents = elements(body, "contents");
    check_contents(contents, host, "GenerateContentRequest.contents")?;
    check_calls(contents)?;
    check_proofs(contents, family)?;
    if family.gemma && member(body, "system_instruction").is_some() {
        return Err(ApiError::invalid(format!("Developer instruction is not enabled for models/{model}")));
    }
    let declared = check_tools(body)?;
    check_config(body, family, host, declared)
}

/// Checks a request to count tokens.
pub fn check_count(body: &Value, model: &str, host: Host) -> Result<(), ApiError> {
    proto::check(body, &proto::COUNT, host)?;
    if let Some(nested) = member(body, "generate_content_request") {
        if member(body, "contents").is_some() {
            return Err(ApiError::invalid("Only one of contents and generateContentRequest may be set."));
        }
        check_model(nested, model, "CountTokensRequest.generate_content_request.model")?;
        return check(nested, model, host);
    }
    check_contents(elements(body, "contents"), host, "CountTokensRequest.contents")
}

/// Checks requests for embeddings.
pub fn check_embed(body: &Value, model: &str, host: Host, message: &'static Message) -> Result<(), ApiError> {
    proto::check(body, message, host)?;
    let (requests, batch) = match member(body, "requests") {
        Some(Value::Array(requests)) => (requests.as_slice(), true),
        _ if std::ptr::eq(message, &raw const proto::BATCH_EMBED) => (&[][..], true),
        _ => (std::slice::from_ref(body), false),
    };
    if requests.is_empty() || requests.len() > 100 {
        return Err(ApiError::invalid(
            "* BatchEmbedContentsRequest.requests: at least 1 and at most 100 requests can be in one batch\n",
        ));
    }
    for (at, request) in requests.iter().enumerate() {
        let place =
            if batch { format!("BatchEmbedContentsRequest.requests[{at}]") } else { "EmbedContentRequest".to_owned() };
        if batch {
            check_model(request, model, &format!("{place}.model"))?;
        }
        if elements(member(request, "content").unwrap_or(&Value::Null), "parts").is_empty() {
            return Err(ApiError::invalid(format!("* {place}.content: contents is not specified\n")));
        }
    }
    Ok(())
}

fn check_model(request: &Value, model: &str, place: &str) -> Result<(), ApiError> {
    match member(request, "model").and_then(Value::as_str) {
        Some(named) if named == format!("models/{model}") => Ok(()),
        Some(_) => Err(ApiError::invalid(format!("* {place}: model must be the one of the URL\n"))),
        None => Err(ApiError::invalid(format!("* {place}: unexpected model name format\n"))),
    }
}

fn check_contents(contents: &[Value], host: Host, place: &str) -> Result<(), ApiError> {
    if contents.is_empty() {
        return Err(ApiError::invalid(if host.is_vertex() {
            "Unable to submit request because at least one contents field is required.".to_owned()
        } else {
            format!("* {place}: contents is not specified\n")
        }));
    }
    for (at, content) in contents.iter().enumerate() {
        match member(content, "role").and_then(Value::as_str) {
            Some("user" | "model") => {}
            None if contents.len() == 1 && !host.is_vertex() => {}
            _ => return Err(ApiError::invalid("Please use a valid role: user, model.")),
        }
        let parts = elements(content, "parts");
        if parts.is_empty() {
            return Err(ApiError::invalid(format!("* {place}[{at}].parts: contents.parts must not be empty.\n")));
        }
        for (number, part) in parts.iter().enumerate() {
            check_part(part, &format!("{place}[{at}].parts[{number}]"))?;
        }
    }
    Ok(())
}

fn check_part(part: &Value, place: &str) -> Result<(), ApiError> {
    let mut data = DATA.iter().filter(|name| member(part, name).is_some());
    if data.next().is_none() {
        return Err(ApiError::invalid(format!(
            "* {place}.data: required oneof field 'data' must have one initialized field\n"
        )));
    }
    if let Some(second) = data.next() {
        return Err(ApiError::invalid(format!(
            "Invalid value at '{place}' (oneof), oneof field 'data' is already set. Cannot set '{second}'"
        )));
    }
    for kind in ["function_call", "function_response"] {
        let name = member(part, kind).map(|value| member(value, "name").and_then(Value::as_str).unwrap_or_default());
        if name == Some("") {
            return Err(ApiError::invalid(format!("* {place}.{kind}.name: Name cannot be empty.\n")));
        }
    }
    for kind in ["inline_data", "file_data"] {
        let missing = |value: &Value| member(value, "mime_type").is_none();
        // YouTube and the Files API know the type themselves.
        if kind == "inline_data" && member(part, kind).is_some_and(missing) {
            return Err(ApiError::invalid(format!("* {place}.{kind}.mime_type: mime type must be set\n")));
        }
    }
    Ok(())
}

/// The parts of a kind in a turn, which may be written as several contents of one role.
fn named<'a>(turn: &[&'a Value], kind: &str) -> Vec<&'a str> {
    let parts = turn.iter().flat_map(|content| elements(content, "parts"));
    let called = parts.filter_map(|part| member(part, kind));
    called.filter_map(|call| member(call, "name").and_then(Value::as_str)).collect()
}

/// Calls are answered in the turn after them, each by its name.
fn check_calls(contents: &[Value]) -> Result<(), ApiError> {
    let role = |content: &Value| member(content, "role").and_then(Value::as_str).map(str::to_owned);
    let mut turns: Vec<(Option<String>, Vec<&Value>)> = Vec::new();
    for content in contents {
        let role = role(content);
        match turns.last_mut() {
            Some((last, turn)) if *last == role => turn.push(content),
            _ => turns.push((role, vec![content])),
        }
    }
    let mut open: Vec<&str> = Vec::new();
    for (at, (role, turn)) in turns.iter().enumerate() {
        let mut answers = named(turn, "function_response");
        if role.as_deref() == Some("model") {
            if at == 0 && !named(turn, "function_call").is_empty() {
                return Err(ApiError::invalid(
                    "Please ensure that function call turn comes immediately after a user turn or after a function \
                     response turn.",
                ));
            }
            open = named(turn, "function_call");
            continue;
        }
        if open.is_empty() && !answers.is_empty() {
            return Err(ApiError::invalid(
                "Please ensure that function response turn comes immediately after a function call turn.",
            ));
        }
        if open.len() != answers.len() {
            return Err(ApiError::invalid(
                "Please ensure that the number of function response parts is equal to the number of function call \
                 parts of the function call turn.",
            ));
        }
        answers.sort_unstable();
        open.sort_unstable();
        if let Some((_, answer)) = open.iter().zip(&answers).find(|(call, answer)| call != answer) {
            return Err(ApiError::invalid(format!(
                "Please ensure that function response turn comes immediately after a function call turn: no call of \
                 `{answer}` precedes its response."
            )));
        }
        open = Vec::new();
    }
    Ok(())
}

/// In the turn that is going on, the first call of each step brings its proof.
fn check_proofs(contents: &[Value], family: Family) -> Result<(), ApiError> {
    let asks = |content: &Value| {
        member(content, "role").and_then(Value::as_str) != Some("model")
            && elements(content, "parts").iter().all(|part| member(part, "function_response").is_none())
    };
    let start = contents.iter().rposition(asks).unwrap_or(0);
    for (at, content) in contents.iter().enumerate() {
        let calls = elements(content, "parts").iter().filter(|part| member(part, "function_call").is_some());
        for (number, part) in calls.enumerate() {
            let call = member(part, "function_call").unwrap_or(&Value::Null);
            let text = |name: &str| member(call, name).and_then(Value::as_str).unwrap_or_default();
            let demanded = family.demands_proofs() || text("id").starts_with(PROVEN_ID);
            match member(part, "thought_signature").and_then(Value::as_str) {
                Some(given) => check_proof(given, text("name"), member(call, "args").unwrap_or(&Value::Null))?,
                None if demanded && number == 0 && at > start => {
                    return Err(ApiError::invalid(format!(
                        "Function call is missing a thought_signature in functionCall parts. This is required for \
                         tools to work correctly, and missing thought_signature may lead to degraded model \
                         performance. Additional data, function call `default_api:{}` , position {}. Please refer to \
                         https://ai.google.dev/gemini-api/docs/thought-signatures for more details.",
                        text("name"),
                        at + 1
                    )));
                }
                None => {}
            }
        }
    }
    Ok(())
}

/// A proof of this provider's own must be the one of its call; of others nothing is known.
fn check_proof(given: &str, name: &str, args: &Value) -> Result<(), ApiError> {
    let decoded = proto::bytes(given).unwrap_or_default();
    let args = if args.is_null() { &Value::Object(serde_json::Map::new()) } else { args };
    if decoded == SENTINEL || !decoded.starts_with(PROOF) || decoded == proof(name, args) {
        return Ok(());
    }
    Err(ApiError::invalid("Corrupted thought signature."))
}

/// Whether functions are declared.
fn check_tools(body: &Value) -> Result<bool, ApiError> {
    let mut names = HashSet::new();
    for (at, tool) in elements(body, "tools").iter().enumerate() {
        for (number, declaration) in elements(tool, "function_declarations").iter().enumerate() {
            let place = format!("GenerateContentRequest.tools[{at}].function_declarations[{number}]");
            let name = member(declaration, "name").and_then(Value::as_str).unwrap_or_default();
            let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte);
            if !first || name.len() > 64 || !name.bytes().all(fits) {
                return Err(ApiError::invalid(format!(
                    "* {place}.name: [Invalid function name. Must start with a letter or an underscore. Must be \
                     alphanumeric (a-z, A-Z, 0-9), underscores (_), dots (.), colons (:), or dashes (-), with a \
                     maximum length of 64.]\n"
                )));
            }
            if !names.insert(name) {
                return Err(ApiError::invalid(format!("Duplicate function declaration found: {name}")));
            }
        }
    }
    if names.is_empty()
        && member(body, "tool_config").and_then(|config| member(config, "function_calling_config")).is_some()
    {
        return Err(ApiError::invalid("Function calling config is set without function_declarations."));
    }
    Ok(!names.is_empty())
}

fn check_config(body: &Value, family: Family, host: Host, declared: bool) -> Result<(), ApiError> {
    let Some(config) = member(body, "generation_config") else {
        return Ok(());
    };
    let stops = elements(config, "stop_sequences").len();
    let stops = u32::try_from(stops).ok().filter(|stops| *stops > 0).map(f64::from);
    for (name, shown, least, end, most) in [
        ("temperature", "temperature", 0.0, "2.0001", 2.0),
        ("top_p", "topP", 0.0, "1.0001", 1.0),
        ("candidate_count", "candidateCount", 1.0, "9", 8.0),
        ("max_output_tokens", "maxOutputTokens", 1.0, "65537", f64::INFINITY),
        ("stop_sequences", "stopSequences", 1.0, "6", 5.0),
    ] {
        let value = if name == "stop_sequences" { stops } else { member(config, name).and_then(Value::as_f64) };
        let Some(value) = value.filter(|value| !(least..=most).contains(value)) else { continue };
        return Err(ApiError::invalid(if host.is_vertex() {
            format!(
                "Unable to submit request because it has a {shown} value of {value} but the supported range is from \
                 {least} (inclusive) to {end} (exclusive). Update the value and try again."
            )
        } else if name == "stop_sequences" {
            "the number of stop_sequences must not exceed 5".to_owned()
        } else {
            format!(
                "* GenerateContentRequest.generation_config.{name}: {name} must be in the range [{least}, {most}].\n"
            )
        }));
    }
    let json = member(config, "response_mime_type").and_then(Value::as_str) == Some("application/json");
    let schema = ["response_schema", "response_json_schema"].into_iter().find(|name| member(config, name).is_some());
    let mime = member(config, "response_mime_type").and_then(Value::as_str);
    if let Some(name) = schema
        && !matches!(mime, Some("application/json" | "text/x.enum"))
    {
        return Err(ApiError::invalid(format!(
            "* GenerateContentRequest.generation_config.{name}: only allowed when response_mime_type is \
             `application/json` or `text/x.enum`\n"
        )));
    }
    if json && declared && family.version < 3.0 {
        return Err(ApiError::invalid("Function calling with a response mime type: 'application/json' is unsupported"));
    }
    member(config, "thinking_config").map_or(Ok(()), |thinking| check_thinking(thinking, family))
}

fn check_thinking(thinking: &Value, family: Family) -> Result<(), ApiError> {
    let level = member(thinking, "thinking_level").and_then(Value::as_str);
    let budget = member(thinking, "thinking_budget").and_then(Value::as_i64);
    match (level, budget) {
        (Some(_), Some(_)) => {
            Err(ApiError::invalid("You can only set only one of thinking budget and thinking level."))
        }
        (Some(_), None) if family.version < 3.0 => {
            Err(ApiError::invalid("Thinking level is not supported for this model."))
        }
        (Some(level), None) if level.eq_ignore_ascii_case("minimal") && (family.pro || family.flash_37) => {
            Err(ApiError::invalid(
                "Thinking level MINIMAL is not supported for this model. Please retry with other thinking level.",
            ))
        }
        (None, Some(budget)) if family.version < 3.0 && budget != -1 => {
            let (least, most) = if family.pro { (128, 32_768) } else { (0, 24_576) };
            if budget == 0 && family.pro {
                return Err(ApiError::invalid("Budget 0 is invalid. This model only works in thinking mode."));
            }
            if !(least..=most).contains(&budget) {
                return Err(ApiError::invalid(format!(
                    "The thinking budget {budget} is invalid. Please choose a value between {least} and {most}."
                )));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}
