//! What the providers refuse.

use serde_json::{Map, Value, json};

use crate::reply::ApiError;

/// One thing that a provider refuses.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rule {
    /// Members beyond these, also in messages, and an empty list of tools: 422 with a list of what is wrong.
    MistralMembers(&'static [&'static str]),
    /// Any other word than its own.
    MistralChoice,
    /// Ids of tool calls that are not nine letters and digits.
    MistralCallIds,
    /// A user after a tool; an assistant at the end that is no prefix.
    MistralOrder,
    /// Files and sound in OpenAI's form.
    MistralParts,
    /// Members beyond these.
    GroqMembers(&'static [&'static str]),
    /// Members of messages beyond these.
    GroqMessages(&'static [&'static str]),
    /// More than one choice.
    OneChoice(&'static str),
    /// A role that only OpenAI has.
    DeveloperUnknown,
    /// Tool calls without the reasoning that led to them, when the model thinks. `{}` is the message's place.
    ReasoningBack(fn(&Value) -> bool, &'static str),
    /// A demanded tool, when the model thinks.
    NoForcedChoice(fn(&Value) -> bool, &'static str),
    /// A schema for the answer.
    NoSchema(&'static str),
    /// Sampling that is not the model's own.
    MoonshotSampling,
    /// Parameters that are no object.
    MoonshotSchema,
    /// Penalties, stop sequences and efforts that a model does not have.
    XaiReasoning,
    /// Any of these members.
    Lacks(&'static [&'static str], &'static str),
    /// Any of these members, by its name.
    LacksEach(&'static [&'static str]),
    /// Roles that do not take turns, or an assistant at the end.
    Alternate(&'static str),
    /// A choice of tools other than `auto`: the code and the message.
    OnlyAutoChoice(&'static str, &'static str),
    /// A conversation without a user: the code and the message.
    NeedsUser(&'static str, &'static str),
    /// Parts of these types.
    NoParts(&'static [&'static str], &'static str),
    /// JSON wished for without a word of it.
    JsonWord,
    /// Thinking without a stream on open models, and a demanded tool while thinking.
    DashScopeThinking,
    /// A temperature that is not above the first and up to the second.
    Temperature(f64, f64),
    /// Pictures that would have to be fetched.
    NoWebImages(&'static str),
    /// A choice of tools that is an object.
    ChoiceIsWord(&'static str),
    /// A model that is no path in the catalogue.
    ModelPath,
    /// Everything: nobody has that name.
    NoSuchPreset,
}

fn given<'a>(body: &'a Value, name: &str) -> Option<&'a Value> {
    body.get(name).filter(|value| !value.is_null())
}

fn model(body: &Value) -> &str {
    body.get("model").and_then(Value::as_str).unwrap_or_default()
}

fn messages(body: &Value) -> &[Value] {
    body.get("messages").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn role(message: &Value) -> &str {
    message.get("role").and_then(Value::as_str).unwrap_or_default()
}

fn calls(message: &Value) -> &[Value] {
    message.get("tool_calls").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn parts(message: &Value) -> &[Value] {
    message.get("content").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn names(value: &Value) -> impl Iterator<Item = &String> {
    value.as_object().into_iter().flat_map(Map::keys)
}

/// Whether a tool is demanded.
fn forced(body: &Value) -> bool {
    given(body, "tool_choice").is_some_and(|choice| choice.is_object() || choice == "required")
}

fn refuse(condition: bool, message: impl Into<String>) -> Result<(), ApiError> {
    if condition { Err(ApiError::invalid(message)) } else { Ok(()) }
}

/// Models of Kimi from K2.5 on.
pub(super) fn newer_kimi(body: &Value) -> bool {
    ["kimi-k2.5", "kimi-k2.6", "kimi-k2.7", "kimi-k3"].iter().any(|family| model(body).starts_with(family))
}

impl Rule {
    pub(super) fn check(&self, body: &Value) -> Result<(), ApiError> {
        match *self {
            Self::MistralMembers(known) => mistral_members(body, known),
            Self::MistralChoice => match given(body, "tool_choice") {
                Some(Value::String(word)) if !["auto", "any", "none", "required"].contains(&word.as_str()) => {
                    Err(mistral_wrong(
                        "enum",
                        &json!(["body", "tool_choice"]),
                        "Input should be 'auto', 'none', 'any' or 'required'",
                        &json!(word),
                    ))
                }
                Some(choice @ Value::Object(_)) if choice.pointer("/function/name").is_none() => {
                    Err(mistral_wrong("missing", &json!(["body", "tool_choice", "function"]), "Field required", choice))
                }
                _ => Ok(()),
            },
            Self::MistralCallIds => mistral_ids(body),
            Self::MistralOrder => mistral_order(body),
            Self::MistralParts => {
                let foreign = |part: &Value| {
                    part.get("file").is_some() || part.get("input_audio").is_some_and(|sound| !sound.is_string())
                };
                refuse(messages(body).iter().flat_map(parts).any(foreign), "Input tag found does not match any chunk")
            }
            Self::GroqMembers(known) => match names(body).find(|name| !known.contains(&name.as_str())) {
                Some(name) => Err(ApiError::invalid(format!("property '{name}' is unsupported"))),
                None => Ok(()),
            },
            Self::GroqMessages(known) => {
                for (at, message) in messages(body).iter().enumerate() {
                    if let Some(name) = names(message).find(|name| !known.contains(&name.as_str())) {
                        return Err(ApiError::invalid(format!(
                            "'messages.{at}' : for 'role:{}' the following must be satisfied[('messages.{at}' : \
                             property '{name}' is unsupported)]",
                            role(message)
                        )));
                    }
                }
                Ok(())
            }
            Self::OneChoice(message) => refuse(given(body, "n").is_some_and(|n| n != 1), message),
            Self::DeveloperUnknown => match messages(body).iter().position(|message| role(message) == "developer") {
                Some(at) => Err(ApiError::new(
                    422,
                    format!(
                        "Failed to deserialize the JSON body into the target type: messages[{at}].role: unknown \
                             variant `developer`, expected one of `system`, `user`, `assistant`, `tool`, \
                             `latest_reminder`"
                    ),
                )),
                None => Ok(()),
            },
            Self::ReasoningBack(thinks, words) => {
                let lacking = |message: &Value| {
                    role(message) == "assistant"
                        && !calls(message).is_empty()
                        && !message.get("reasoning_content").is_some_and(Value::is_string)
                };
                match messages(body).iter().position(lacking).filter(|_| thinks(body)) {
                    Some(at) => {
                        Err(ApiError::invalid(words.replace("{}", &at.to_string())).code("invalid_request_error"))
                    }
                    None => Ok(()),
                }
            }
            Self::NoForcedChoice(thinks, words) => refuse(forced(body) && thinks(body), words),
            Self::NoSchema(words) => {
                let kind = body.pointer("/response_format/type").and_then(Value::as_str);
                refuse(kind == Some("json_schema"), words)
            }
            Self::MoonshotSampling => moonshot_sampling(body),
            Self::MoonshotSchema => {
                let tools = given(body, "tools").and_then(Value::as_array).into_iter().flatten();
                let schemas = tools.filter_map(|tool| tool.pointer("/function/parameters"));
                let wrong =
                    schemas.into_iter().any(|schema| schema.get("type").and_then(Value::as_str) != Some("object"));
                refuse(
                    wrong,
                    "Invalid request: tools.function.parameters is not a valid moonshot flavored json schema, details: \
                     <At path 'type': type should be object>",
                )
            }
            Self::XaiReasoning => xai(body),
            Self::Lacks(members, words) => refuse(members.iter().any(|name| given(body, name).is_some()), words),
            Self::LacksEach(members) => match members.iter().find(|name| given(body, name).is_some()) {
                Some(name) => Err(ApiError::invalid(format!("body.{name}: property '{name}' is unsupported"))
                    .param(*name)
                    .code("wrong_api_format")),
                None => Ok(()),
            },
            Self::Alternate(words) => {
                let said = || messages(body).iter().map(role).skip_while(|role| *role == "system");
                let assistant = |role: &str| role == "assistant";
                let mut expected = false;
                let turns = said().all(|role| {
                    let fits = role != "system" && assistant(role) == expected;
                    expected = !expected;
                    fits
                });
                if !turns {
                    return Err(ApiError::invalid(words).code("invalid_message"));
                }
                let last = said().last();
                match last.is_some_and(assistant) {
                    true => {
                        Err(ApiError::invalid("Last message must have role `user` or `tool`.").code("invalid_message"))
                    }
                    false => Ok(()),
                }
            }
            Self::OnlyAutoChoice(code, words) => match given(body, "tool_choice") {
                Some(choice) if choice != "auto" => Err(ApiError::invalid(words).code(code)),
                _ => Ok(()),
            },
            Self::NeedsUser(code, words) => {
                let heard = messages(body).iter().any(|message| ["user", "tool"].contains(&role(message)));
                if heard { Ok(()) } else { Err(ApiError::invalid(words).code(code)) }
            }
            Self::NoParts(kinds, words) => {
                let kind = |part: &Value| part.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
                let found = messages(body).iter().flat_map(parts).any(|part| kinds.contains(&kind(part).as_str()));
                refuse(found, words)
            }
            Self::JsonWord => {
                let wanted = body.pointer("/response_format/type").is_some_and(|kind| kind == "json_object");
                let said = messages(body).iter().any(|message| {
                    message.get("content").is_some_and(|content| content.to_string().to_lowercase().contains("json"))
                });
                refuse(
                    wanted && !said,
                    "<400> InternalError.Algo.InvalidParameter: 'messages' must contain the word 'json' in some form, \
                     to use 'response_format' of type 'json_object'.",
                )
            }
            Self::DashScopeThinking => {
                let thinks = given(body, "enable_thinking") == Some(&Value::Bool(true));
                let open = model(body).starts_with("qwen3-") && model(body).ends_with('b');
                let whole = given(body, "stream") != Some(&Value::Bool(true));
                refuse(
                    thinks && open && whole,
                    "parameter.enable_thinking must be set to false for non-streaming calls",
                )?;
                refuse(
                    thinks && forced(body),
                    "<400> InternalError.Algo.InvalidParameter: The tool_choice parameter does not support being set to \
                     required or object in thinking mode",
                )
            }
            Self::Temperature(above, most) => match given(body, "temperature").map(Value::as_f64) {
                Some(Some(warmth)) if warmth > above && warmth <= most => Ok(()),
                None => Ok(()),
                Some(_) => Err(ApiError::invalid(format!("temperature must be in ({above}, {most}]"))
                    .param("temperature")
                    .code("invalid_argument")),
            },
            Self::NoWebImages(words) => {
                let addresses = messages(body).iter().flat_map(parts).filter_map(|part| {
                    let image = part.get("image_url")?;
                    image.as_str().or_else(|| image.get("url").and_then(Value::as_str))
                });
                let fetched = addresses.into_iter().any(|address| address.starts_with("http"));
                refuse(fetched, words)
            }
            Self::ChoiceIsWord(words) => refuse(given(body, "tool_choice").is_some_and(Value::is_object), words),
            Self::NoSuchPreset => Err(ApiError::new(404, "There is no such preset.")),
            Self::ModelPath => {
                let known = ["@cf/", "@hf/"].iter().any(|prefix| model(body).starts_with(prefix));
                match known {
                    true => Ok(()),
                    false => Err(ApiError::invalid(format!("No such model {} or task", model(body))).code("5007")),
                }
            }
        }
    }
}

// --- Mistral -------------------------------------------------------------------------------------------------

fn mistral_wrong(kind: &str, place: &Value, words: &str, input: &Value) -> ApiError {
    let detail = json!({"detail": [{"type": kind, "loc": place, "msg": words, "input": input}]});
    ApiError::new(422, detail.to_string())
}

fn mistral_members(body: &Value, known: &[&str]) -> Result<(), ApiError> {
    let extra = |place: Value, input: &Value| {
        Err(mistral_wrong("extra_forbidden", &place, "Extra inputs are not permitted", input))
    };
    for (name, value) in body.as_object().into_iter().flatten() {
        let no_tools = name == "tools" && value.as_array().is_some_and(Vec::is_empty);
        if no_tools || !known.contains(&name.as_str()) {
            return extra(json!(["body", name]), value);
        }
    }
    for (at, message) in messages(body).iter().enumerate() {
        let members: &[&str] = match role(message) {
            "system" => &["role", "content"],
            "user" => &["role", "content"],
            "assistant" => &["role", "content", "tool_calls", "prefix"],
            "tool" => &["role", "content", "tool_call_id", "name"],
            other => {
                let words = format!(
                    "Input tag '{other}' found using 'role' does not match any of the expected tags: 'assistant', \
                     'system', 'tool', 'user'"
                );
                return Err(mistral_wrong("union_tag_invalid", &json!(["body", "messages", at]), &words, message));
            }
        };
        for (name, value) in message.as_object().into_iter().flatten() {
            if !members.contains(&name.as_str()) {
                return extra(json!(["body", "messages", at, role(message), name]), value);
            }
        }
    }
    Ok(())
}

fn mistral_ids(body: &Value) -> Result<(), ApiError> {
    let ids = messages(body).iter().flat_map(|message| {
        let made = calls(message).iter().filter_map(|call| call.get("id"));
        made.chain(message.get("tool_call_id"))
    });
    for id in ids.into_iter().filter_map(Value::as_str) {
        if id.len() != 9 || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            let words = format!("Tool call id was {id} but must be a-z, A-Z, 0-9, with a length of 9.");
            let error = ApiError::invalid(words).code("3280");
            return Err(ApiError { kind: Some("invalid_function_call".to_owned()), ..error });
        }
    }
    Ok(())
}

fn mistral_order(body: &Value) -> Result<(), ApiError> {
    let wrong = |words: String| {
        let error = ApiError::invalid(words).code("3230");
        Err(ApiError { kind: Some("invalid_request_message_order".to_owned()), ..error })
    };
    let said = messages(body);
    for (before, after) in said.iter().zip(said.iter().skip(1)) {
        if (role(before), role(after)) == ("tool", "user") {
            return wrong("Unexpected role 'user' after role 'tool'".to_owned());
        }
    }
    match said.last() {
        Some(last) if role(last) == "assistant" && last.get("prefix") != Some(&Value::Bool(true)) => wrong(
            "Expected last role User or Tool (or Assistant with prefix True) for serving but got assistant".to_owned(),
        ),
        Some(last) if role(last) == "system" => wrong(
            "Expected last role User or Tool (or Assistant with prefix True) for serving but got system".to_owned(),
        ),
        _ => Ok(()),
    }
}

// --- Others --------------------------------------------------------------------------------------------------

fn moonshot_sampling(body: &Value) -> Result<(), ApiError> {
    if !newer_kimi(body) {
        return Ok(());
    }
    let disabled = body.pointer("/thinking/type").and_then(Value::as_str) == Some("disabled");
    for (name, only) in [("temperature", if disabled { 0.6 } else { 1.0 }), ("top_p", 0.95)] {
        if given(body, name).is_some_and(|value| value.as_f64() != Some(only)) {
            return Err(ApiError::invalid(format!("invalid {name}: only {only} is allowed for this model")));
        }
    }
    Ok(())
}

/// Names in the form that xAI's errors have them.
fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut all, word| {
        let mut letters = word.chars();
        all.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        all.push_str(letters.as_str());
        all
    })
}

fn xai(body: &Value) -> Result<(), ApiError> {
    let model = model(body);
    let quiet =
        model.contains("non-reasoning") || model.contains("4.20") || model.contains("build") || model.contains("code");
    let reasons =
        !quiet && (model.starts_with("grok-3-mini") || model.starts_with("grok-4") || model.ends_with("latest"));
    let unsupported =
        |name: &str| Err(ApiError::invalid(format!("Argument not supported on this model: {}", camel(name))));
    if reasons
        && let Some(name) =
            ["presence_penalty", "frequency_penalty", "stop"].iter().find(|name| given(body, name).is_some())
    {
        return unsupported(name);
    }
    match given(body, "reasoning_effort").and_then(Value::as_str) {
        Some(_) if quiet => unsupported("reasoning_effort"),
        Some("none") if ["grok-4.5", "grok-4.6", "grok-4.7"].iter().any(|family| model.starts_with(family)) => {
            unsupported("reasoning_effort")
        }
        _ => Ok(()),
    }
}
