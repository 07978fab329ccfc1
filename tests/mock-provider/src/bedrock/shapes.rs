//! The shapes of Bedrock's runtime API: members, which of them must be there, patterns and ranges.

use serde_json::{Map, Value};

use crate::reply::ApiError;

/// What a member holds.
#[derive(Debug)]
pub enum Type {
    /// A text of so many letters, and which they may be.
    Text(usize, usize, Letters),
    /// One of these words.
    Word(&'static [&'static str]),
    Bytes,
    Bool,
    Integer(i64),
    /// A number between 0 and 1.
    Share,
    /// Any JSON.
    Document,
    Object,
    Shape(&'static Shape),
    List(usize, &'static Type),
}

/// Which letters a text may have.
#[derive(Debug, Clone, Copy)]
pub enum Letters {
    Any,
    /// `[a-zA-Z0-9_-]+`
    Name,
    /// `[a-zA-Z0-9_.:-]+`
    Id,
}

/// A structure, or a union, of which exactly one member is set.
#[derive(Debug)]
pub struct Shape {
    union: bool,
    required: &'static [&'static str],
    members: &'static [(&'static str, Type)],
}

use Type::{Bool, Bytes, Document, Integer, List, Object, Share, Text, Word};

const ANY: Type = Text(0, usize::MAX, Letters::Any);
const NON_EMPTY: Type = Text(1, usize::MAX, Letters::Any);
const NAME: Type = Text(1, 64, Letters::Name);
const ID: Type = Text(1, 64, Letters::Id);

const fn structure(required: &'static [&'static str], members: &'static [(&'static str, Type)]) -> Shape {
    Shape { union: false, required, members }
}

const fn union(members: &'static [(&'static str, Type)]) -> Shape {
    Shape { union: true, required: &[], members }
}

static MESSAGE: Shape = structure(
    &["role", "content"],
    &[("role", Word(&["user", "assistant", "system"])), ("content", List(0, &Type::Shape(&CONTENT)))],
);

static CONTENT: Shape = union(&[
    ("text", ANY),
    ("image", Type::Shape(&IMAGE)),
    ("document", Type::Shape(&DOCUMENT)),
    ("video", Type::Shape(&VIDEO)),
    ("audio", Type::Shape(&AUDIO)),
    ("toolUse", Type::Shape(&TOOL_USE)),
    ("toolResult", Type::Shape(&TOOL_RESULT)),
    ("guardContent", Object),
    ("cachePoint", Type::Shape(&CACHE_POINT)),
    ("reasoningContent", Type::Shape(&REASONING)),
    ("citationsContent", Object),
    ("searchResult", Object),
    ("toolAddition", Object),
    ("toolRemoval", Object),
]);

static SOURCE: Shape = union(&[("bytes", Bytes), ("s3Location", Type::Shape(&S3))]);
static S3: Shape = structure(&["uri"], &[("uri", Text(1, 1024, Letters::Any)), ("bucketOwner", ANY)]);

static IMAGE: Shape = structure(
    &["format", "source"],
    &[("format", Word(&["png", "jpeg", "gif", "webp"])), ("source", Type::Shape(&SOURCE)), ("error", Object)],
);

static DOCUMENT: Shape = structure(
    &["name", "source"],
    &[
        ("format", Word(&["pdf", "csv", "doc", "docx", "xls", "xlsx", "html", "txt", "md"])),
        ("name", Text(1, 200, Letters::Any)),
        ("source", Type::Shape(&DOCUMENT_SOURCE)),
        ("context", ANY),
        ("citations", Object),
    ],
);

static DOCUMENT_SOURCE: Shape =
    union(&[("bytes", Bytes), ("s3Location", Type::Shape(&S3)), ("text", ANY), ("content", List(0, &Object))]);

static VIDEO: Shape = structure(
    &["format", "source"],
    &[
        ("format", Word(&["mkv", "mov", "mp4", "webm", "flv", "mpeg", "mpg", "wmv", "three_gp"])),
        ("source", Type::Shape(&SOURCE)),
    ],
);

static AUDIO: Shape = structure(
    &["format", "source"],
    &[
        (
            "format",
            Word(&[
                "mp3", "opus", "wav", "aac", "flac", "mp4", "ogg", "mkv", "mka", "x-aac", "m4a", "mpeg", "mpga", "pcm",
                "webm",
            ]),
        ),
        ("source", Type::Shape(&SOURCE)),
        ("error", Object),
    ],
);

static TOOL_USE: Shape = structure(
    &["toolUseId", "name", "input"],
    &[("toolUseId", ID), ("name", NAME), ("input", Document), ("type", Word(&["server_tool_use"]))],
);

static TOOL_RESULT: Shape = structure(
    &["toolUseId", "content"],
    &[
        ("toolUseId", ID),
        ("content", List(0, &Type::Shape(&RESULT_CONTENT))),
        ("status", Word(&["success", "error"])),
        ("type", ANY),
    ],
);

static RESULT_CONTENT: Shape = union(&[
    ("json", Document),
    ("text", ANY),
    ("image", Type::Shape(&IMAGE)),
    ("document", Type::Shape(&DOCUMENT)),
    ("video", Type::Shape(&VIDEO)),
    ("searchResult", Object),
]);

static CACHE_POINT: Shape = structure(&["type"], &[("type", Word(&["default"])), ("ttl", Word(&["5m", "1h"]))]);
static REASONING: Shape = union(&[("reasoningText", Type::Shape(&REASONING_TEXT)), ("redactedContent", Bytes)]);
static REASONING_TEXT: Shape = structure(&["text"], &[("text", ANY), ("signature", ANY)]);
static SYSTEM: Shape =
    union(&[("text", NON_EMPTY), ("guardContent", Object), ("cachePoint", Type::Shape(&CACHE_POINT))]);

static INFERENCE: Shape = structure(
    &[],
    &[("maxTokens", Integer(1)), ("temperature", Share), ("topP", Share), ("stopSequences", List(0, &NON_EMPTY))],
);

static TOOL_CONFIG: Shape =
    structure(&["tools"], &[("tools", List(1, &Type::Shape(&TOOL))), ("toolChoice", Type::Shape(&TOOL_CHOICE))]);
static TOOL: Shape = union(&[
    ("toolSpec", Type::Shape(&TOOL_SPEC)),
    ("systemTool", Type::Shape(&NAMED)),
    ("cachePoint", Type::Shape(&CACHE_POINT)),
]);
static NAMED: Shape = structure(&["name"], &[("name", NAME)]);
static TOOL_SPEC: Shape = structure(
    &["name", "inputSchema"],
    &[("name", NAME), ("description", NON_EMPTY), ("inputSchema", Type::Shape(&INPUT_SCHEMA)), ("strict", Bool)],
);
static INPUT_SCHEMA: Shape = union(&[("json", Document)]);
static EMPTY: Shape = structure(&[], &[]);
static TOOL_CHOICE: Shape =
    union(&[("auto", Type::Shape(&EMPTY)), ("any", Type::Shape(&EMPTY)), ("tool", Type::Shape(&NAMED))]);

static OUTPUT: Shape =
    structure(&[], &[("textFormat", Type::Shape(&TEXT_FORMAT)), ("effort", Text(0, 16, Letters::Any))]);
static TEXT_FORMAT: Shape =
    structure(&["type", "structure"], &[("type", Word(&["json_schema"])), ("structure", Type::Shape(&STRUCTURE))]);
static STRUCTURE: Shape = union(&[("jsonSchema", Type::Shape(&JSON_SCHEMA))]);
static JSON_SCHEMA: Shape = structure(&["schema"], &[("schema", ANY), ("name", ANY), ("description", ANY)]);
static SERVICE_TIER: Shape = structure(&["type"], &[("type", Word(&["priority", "default", "flex", "reserved"]))]);
static PERFORMANCE: Shape = structure(&[], &[("latency", Word(&["standard", "optimized"]))]);
static GUARDRAIL: Shape = structure(
    &[],
    &[
        ("guardrailIdentifier", ANY),
        ("guardrailVersion", ANY),
        ("trace", Word(&["enabled", "disabled", "enabled_full"])),
        ("streamProcessingMode", Word(&["sync", "async"])),
    ],
);

pub static CONVERSE: Shape = structure(
    &[],
    &[
        ("messages", List(0, &Type::Shape(&MESSAGE))),
        ("system", List(0, &Type::Shape(&SYSTEM))),
        ("inferenceConfig", Type::Shape(&INFERENCE)),
        ("toolConfig", Type::Shape(&TOOL_CONFIG)),
        ("guardrailConfig", Type::Shape(&GUARDRAIL)),
        ("additionalModelRequestFields", Document),
        ("promptVariables", Object),
        ("additionalModelResponseFieldPaths", List(0, &NON_EMPTY)),
        ("requestMetadata", Object),
        ("performanceConfig", Type::Shape(&PERFORMANCE)),
        ("serviceTier", Type::Shape(&SERVICE_TIER)),
        ("outputConfig", Type::Shape(&OUTPUT)),
    ],
);

pub static COUNT_TOKENS: Shape = structure(&["input"], &[("input", Type::Shape(&COUNT_INPUT))]);
static COUNT_INPUT: Shape =
    union(&[("invokeModel", Type::Shape(&COUNT_INVOKE)), ("converse", Type::Shape(&COUNT_CONVERSE))]);
static COUNT_INVOKE: Shape = structure(&["body"], &[("body", Bytes)]);
static COUNT_CONVERSE: Shape = structure(
    &[],
    &[
        ("messages", List(0, &Type::Shape(&MESSAGE))),
        ("system", List(0, &Type::Shape(&SYSTEM))),
        ("toolConfig", Type::Shape(&TOOL_CONFIG)),
        ("additionalModelRequestFields", Document),
    ],
);

/// A request that does not fit its shape.
fn constraint(value: &Value, path: &str, rule: &str) -> ApiError {
    let value = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    ApiError::invalid(format!(
        "1 validation error detected: Value '{value}' at '{path}' failed to satisfy constraint: {rule}"
    ))
}

fn unserialisable(value: &Value, wanted: &str) -> ApiError {
    let found = match value {
        Value::Null => "NULL_VALUE",
        Value::Bool(true) => "TRUE_VALUE",
        Value::Bool(false) => "FALSE_VALUE",
        Value::Number(number) if number.is_f64() => "DECIMAL_VALUE",
        Value::Number(_) => "NUMBER_VALUE",
        Value::String(_) => "STRING_VALUE",
        Value::Array(_) => "class java.util.ArrayList",
        Value::Object(_) => "Start of structure or map found where not expected: it",
    };
    ApiError {
        kind: Some("SerializationException".to_owned()),
        ..ApiError::invalid(format!("{found} can not be converted to a {wanted}"))
    }
}

/// Checks a request against its shape.
pub fn check(body: &Value, shape: &Shape) -> Result<(), ApiError> {
    match body.as_object() {
        Some(fields) => structure_fits(fields, shape, ""),
        None => Err(unserialisable(body, "Structure")),
    }
}

fn structure_fits(fields: &Map<String, Value>, shape: &Shape, path: &str) -> Result<(), ApiError> {
    let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    for (key, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        match shape.members.iter().find(|(name, _)| name == key) {
            Some((_, kind)) => fits(value, kind, &join(key))?,
            None => {
                let place = if path.is_empty() { "#".to_owned() } else { format!("#/{}", path.replace('.', "/")) };
                return Err(ApiError::invalid(format!(
                    "Malformed input request: {place}: extraneous key [{key}] is not permitted, please reformat your \
                     input and try again."
                )));
            }
        }
    }
    for name in shape.required {
        if fields.get(*name).is_none_or(Value::is_null) {
            return Err(constraint(&Value::Null, &join(name), "Member must not be null").unquoted());
        }
    }
    let set = fields.values().filter(|value| !value.is_null()).count();
    if shape.union && set != 1 {
        return Err(ApiError::invalid(format!(
            "The request is not valid: the union at '{path}' must have exactly one member set, not {set}."
        )));
    }
    Ok(())
}

impl ApiError {
    /// A missing value is written without quotes.
    fn unquoted(mut self) -> Self {
        self.message = self.message.replace("Value 'null'", "Value null");
        self
    }
}

fn fits(value: &Value, kind: &Type, path: &str) -> Result<(), ApiError> {
    match (kind, value) {
        (Document, _) | (Object, Value::Object(_)) | (Bool, Value::Bool(_)) => Ok(()),
        (Type::Shape(shape), Value::Object(fields)) => structure_fits(fields, shape, path),
        (List(least, kind), Value::Array(values)) => {
            if values.len() < *least {
                let rule = format!("Member must have length greater than or equal to {least}");
                return Err(constraint(value, path, &rule));
            }
            // Amazon counts from one.
            values
                .iter()
                .enumerate()
                .try_for_each(|(at, value)| fits(value, kind, &format!("{path}.{}.member", at + 1)))
        }
        (Text(least, most, letters), Value::String(text)) => text_fits(value, text, (*least, *most, *letters), path),
        (Word(words), Value::String(text)) if words.contains(&text.as_str()) => Ok(()),
        (Word(words), Value::String(_)) => {
            Err(constraint(value, path, &format!("Member must satisfy enum value set: [{}]", words.join(", "))))
        }
        (Bytes, Value::String(text)) => match crate::gemini::proto::bytes(text) {
            Some(bytes) if !bytes.is_empty() => Ok(()),
            Some(_) => Err(constraint(value, path, "Member must have length greater than or equal to 1")),
            None => Err(unserialisable(value, "Blob")),
        },
        (Integer(least), Value::Number(number)) => match number.as_i64() {
            Some(number) if number >= *least => Ok(()),
            Some(_) => {
                Err(constraint(value, path, &format!("Member must have value greater than or equal to {least}")))
            }
            None => Err(unserialisable(value, "Integer")),
        },
        (Share, Value::Number(number)) => match number.as_f64().unwrap_or_default() {
            number if number > 1.0 => Err(constraint(value, path, "Member must have value less than or equal to 1")),
            number if number < 0.0 => Err(constraint(value, path, "Member must have value greater than or equal to 0")),
            _ => Ok(()),
        },
        (kind, value) => Err(unserialisable(
            value,
            match kind {
                Bool => "Boolean",
                Integer(_) => "Integer",
                Share => "Float",
                List(..) => "List",
                Text(..) | Word(_) => "String",
                Bytes => "Blob",
                _ => "Structure",
            },
        )),
    }
}

fn text_fits(value: &Value, text: &str, bounds: (usize, usize, Letters), path: &str) -> Result<(), ApiError> {
    let (least, most, letters) = bounds;
    let length = text.chars().count();
    if length < least {
        return Err(constraint(value, path, &format!("Member must have length greater than or equal to {least}")));
    }
    if length > most {
        return Err(constraint(value, path, &format!("Member must have length less than or equal to {most}")));
    }
    let (more, pattern): (&[u8], &str) = match letters {
        Letters::Any => return Ok(()),
        Letters::Name => (b"_-", "[a-zA-Z0-9_-]+"),
        Letters::Id => (b"_.:-", "[a-zA-Z0-9_.:-]+"),
    };
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte)) {
        return Ok(());
    }
    Err(constraint(value, path, &format!("Member must satisfy regular expression pattern: {pattern}")))
}
