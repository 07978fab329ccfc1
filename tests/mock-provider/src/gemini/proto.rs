//! Requests as Google reads them: JSON over protocol buffers. What no message declares is refused, wherever it stands,
//! and so are values of another type; names may be written in camel case or with underscores.
//!
//! The messages are those of `generativelanguage` v1beta and `aiplatform` v1, as Google's own SDK writes them.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use crate::reply::ApiError;

/// Base64 in one of its alphabets, padded or not.
fn lenient(alphabet: &alphabet::Alphabet) -> GeneralPurpose {
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    GeneralPurpose::new(alphabet, config)
}

/// Bytes as JSON carries them; both alphabets are taken.
pub fn bytes(text: &str) -> Option<Vec<u8>> {
    [alphabet::STANDARD, alphabet::URL_SAFE].iter().find_map(|alphabet| lenient(alphabet).decode(text).ok())
}

/// Which API it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    Gemini,
    /// Vertex AI under `v1`, which is behind `v1beta1` by a few members.
    VertexStable,
    Vertex,
}

impl Host {
    pub fn is_vertex(self) -> bool {
        self != Self::Gemini
    }
}

/// What a member holds.
#[derive(Debug)]
pub enum Type {
    Text,
    Bytes,
    Bool,
    Integer,
    Float,
    /// A name of a list, in any case.
    Enum(&'static str),
    /// `google.protobuf.Struct`: an object with anything in it.
    Struct,
    /// `google.protobuf.Value`: anything.
    Any,
    Message(&'static Message),
    List(&'static Type),
    Map(&'static Type),
}

/// Where a member is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Everywhere,
    Gemini,
    Vertex,
    /// Not by Vertex AI under `v1`.
    Newest,
}

/// A message's members, by their names with underscores.
#[derive(Debug)]
pub struct Message(&'static [(&'static str, Known, Type)]);

use Known::{Everywhere, Gemini, Newest, Vertex};
use Type::{Any, Bool, Bytes, Enum, Float, Integer, List, Struct, Text};

static CONTENT: Message = Message(&[("role", Everywhere, Text), ("parts", Everywhere, List(&Type::Message(&PART)))]);

static PART: Message = Message(&[
    ("text", Everywhere, Text),
    ("thought", Everywhere, Bool),
    ("thought_signature", Everywhere, Bytes),
    ("inline_data", Everywhere, Type::Message(&BLOB)),
    ("file_data", Everywhere, Type::Message(&FILE_DATA)),
    ("function_call", Everywhere, Type::Message(&FUNCTION_CALL)),
    ("function_response", Everywhere, Type::Message(&FUNCTION_RESPONSE)),
    ("executable_code", Everywhere, Struct),
    ("code_execution_result", Everywhere, Struct),
    ("video_metadata", Everywhere, Struct),
    ("media_resolution", Everywhere, Struct),
    ("audio_transcription", Everywhere, Struct),
    ("tool_call", Gemini, Struct),
    ("tool_response", Gemini, Struct),
    ("part_metadata", Gemini, Struct),
]);

static BLOB: Message =
    Message(&[("mime_type", Everywhere, Text), ("data", Everywhere, Bytes), ("display_name", Vertex, Text)]);

static FILE_DATA: Message =
    Message(&[("mime_type", Everywhere, Text), ("file_uri", Everywhere, Text), ("display_name", Vertex, Text)]);

static FUNCTION_CALL: Message = Message(&[
    ("id", Newest, Text),
    ("name", Everywhere, Text),
    ("args", Everywhere, Struct),
    ("partial_args", Vertex, List(&Struct)),
    ("will_continue", Vertex, Bool),
]);

static FUNCTION_RESPONSE: Message = Message(&[
    ("id", Newest, Text),
    ("name", Everywhere, Text),
    ("response", Everywhere, Struct),
    ("parts", Everywhere, List(&Type::Message(&RESPONSE_PART))),
    ("will_continue", Gemini, Bool),
    ("scheduling", Everywhere, Text),
]);

static RESPONSE_PART: Message = Message(&[
    ("inline_data", Everywhere, Type::Message(&RESPONSE_BLOB)),
    ("file_data", Vertex, Type::Message(&FILE_DATA)),
]);

static RESPONSE_BLOB: Message =
    Message(&[("mime_type", Everywhere, Text), ("data", Everywhere, Bytes), ("display_name", Everywhere, Text)]);

/// The part of OpenAPI's schemas that `parameters` and `responseSchema` take.
static SCHEMA: Message = Message(&[
    ("type", Everywhere, Enum("STRING NUMBER INTEGER BOOLEAN ARRAY OBJECT NULL TYPE_UNSPECIFIED")),
    ("format", Everywhere, Text),
    ("title", Everywhere, Text),
    ("description", Everywhere, Text),
    ("nullable", Everywhere, Bool),
    ("enum", Everywhere, List(&Text)),
    ("items", Everywhere, Type::Message(&SCHEMA)),
    ("min_items", Everywhere, Integer),
    ("max_items", Everywhere, Integer),
    ("properties", Everywhere, Type::Map(&Type::Message(&SCHEMA))),
    ("property_ordering", Everywhere, List(&Text)),
    ("required", Everywhere, List(&Text)),
    ("min_properties", Everywhere, Integer),
    ("max_properties", Everywhere, Integer),
    ("minimum", Everywhere, Float),
    ("maximum", Everywhere, Float),
    ("min_length", Everywhere, Integer),
    ("max_length", Everywhere, Integer),
    ("pattern", Everywhere, Text),
    ("example", Everywhere, Any),
    ("any_of", Everywhere, List(&Type::Message(&SCHEMA))),
    ("default", Everywhere, Any),
    ("additional_properties", Vertex, Any),
    ("ref", Vertex, Text),
    ("defs", Vertex, Type::Map(&Type::Message(&SCHEMA))),
]);

static GENERATION_CONFIG: Message = Message(&[
    ("temperature", Everywhere, Float),
    ("top_p", Everywhere, Float),
    ("top_k", Everywhere, Float),
    ("candidate_count", Everywhere, Integer),
    ("max_output_tokens", Everywhere, Integer),
    ("stop_sequences", Everywhere, List(&Text)),
    ("response_logprobs", Everywhere, Bool),
    ("logprobs", Everywhere, Integer),
    ("presence_penalty", Everywhere, Float),
    ("frequency_penalty", Everywhere, Float),
    ("seed", Everywhere, Integer),
    ("response_mime_type", Everywhere, Text),
    ("response_schema", Everywhere, Type::Message(&SCHEMA)),
    ("response_json_schema", Everywhere, Any),
    ("response_format", Vertex, Any),
    ("response_modalities", Everywhere, List(&Enum("TEXT IMAGE AUDIO VIDEO MODALITY_UNSPECIFIED"))),
    ("media_resolution", Everywhere, Text),
    ("speech_config", Everywhere, Struct),
    ("thinking_config", Everywhere, Type::Message(&THINKING)),
    ("image_config", Everywhere, Struct),
    ("audio_transcription_config", Everywhere, Struct),
    ("enable_affective_dialog", Everywhere, Bool),
    ("enable_enhanced_civic_answers", Gemini, Bool),
    ("translation_config", Gemini, Struct),
    ("audio_timestamp", Vertex, Bool),
    ("routing_config", Vertex, Struct),
    ("model_config", Vertex, Struct),
]);

static THINKING: Message = Message(&[
    ("include_thoughts", Everywhere, Bool),
    ("thinking_budget", Everywhere, Integer),
    ("thinking_level", Everywhere, Enum("MINIMAL LOW MEDIUM HIGH THINKING_LEVEL_UNSPECIFIED")),
]);

static TOOL: Message = Message(&[
    ("function_declarations", Everywhere, List(&Type::Message(&DECLARATION))),
    ("google_search", Everywhere, Struct),
    ("google_search_retrieval", Everywhere, Struct),
    ("google_maps", Everywhere, Struct),
    ("code_execution", Everywhere, Struct),
    ("url_context", Everywhere, Struct),
    ("computer_use", Everywhere, Struct),
    ("mcp_servers", Everywhere, List(&Struct)),
    ("file_search", Gemini, Struct),
    ("retrieval", Vertex, Struct),
    ("enterprise_web_search", Vertex, Struct),
    ("parallel_ai_search", Vertex, Struct),
    ("exa_ai_search", Vertex, Struct),
]);

static DECLARATION: Message = Message(&[
    ("name", Everywhere, Text),
    ("description", Everywhere, Text),
    ("parameters", Everywhere, Type::Message(&SCHEMA)),
    ("parameters_json_schema", Everywhere, Any),
    ("response", Everywhere, Type::Message(&SCHEMA)),
    ("response_json_schema", Everywhere, Any),
    ("behavior", Gemini, Text),
]);

static TOOL_CONFIG: Message = Message(&[
    ("function_calling_config", Everywhere, Type::Message(&CALLING)),
    ("retrieval_config", Everywhere, Struct),
    ("include_server_side_tool_invocations", Everywhere, Bool),
]);

static CALLING: Message = Message(&[
    ("mode", Everywhere, Enum("AUTO ANY NONE VALIDATED MODE_UNSPECIFIED")),
    ("allowed_function_names", Everywhere, List(&Text)),
    ("stream_function_call_arguments", Vertex, Bool),
]);

static SAFETY: Message =
    Message(&[("category", Everywhere, Text), ("threshold", Everywhere, Text), ("method", Vertex, Text)]);

pub static GENERATE: Message = Message(&[
    ("model", Everywhere, Text),
    ("contents", Everywhere, List(&Type::Message(&CONTENT))),
    ("system_instruction", Everywhere, Type::Message(&CONTENT)),
    ("generation_config", Everywhere, Type::Message(&GENERATION_CONFIG)),
    ("safety_settings", Everywhere, List(&Type::Message(&SAFETY))),
    ("tools", Everywhere, List(&Type::Message(&TOOL))),
    ("tool_config", Everywhere, Type::Message(&TOOL_CONFIG)),
    ("cached_content", Everywhere, Text),
    ("service_tier", Everywhere, Text),
    ("labels", Vertex, Type::Map(&Text)),
    ("model_armor_config", Vertex, Struct),
]);

pub static COUNT: Message = Message(&[
    ("model", Everywhere, Text),
    ("contents", Everywhere, List(&Type::Message(&CONTENT))),
    ("generate_content_request", Gemini, Type::Message(&GENERATE)),
    ("system_instruction", Vertex, Type::Message(&CONTENT)),
    ("tools", Vertex, List(&Type::Message(&TOOL))),
    ("generation_config", Vertex, Type::Message(&GENERATION_CONFIG)),
    ("instances", Vertex, List(&Any)),
]);

pub static EMBED: Message = Message(&[
    ("model", Everywhere, Text),
    ("content", Everywhere, Type::Message(&CONTENT)),
    ("task_type", Everywhere, Text),
    ("title", Everywhere, Text),
    ("output_dimensionality", Everywhere, Integer),
    ("auto_truncate", Vertex, Bool),
    ("embed_content_config", Vertex, Struct),
]);

pub static BATCH_EMBED: Message =
    Message(&[("model", Everywhere, Text), ("requests", Everywhere, List(&Type::Message(&EMBED)))]);

pub static PREDICT: Message = Message(&[
    ("instances", Everywhere, List(&Any)),
    ("parameters", Everywhere, Any),
    ("labels", Vertex, Type::Map(&Text)),
]);

/// A member's name with underscores.
fn plain(name: &str) -> String {
    let mut plain = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            plain.push('_');
        }
        plain.push(c.to_ascii_lowercase());
    }
    plain
}

/// A member of a message under either of its names.
pub fn member<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    let fields = object.as_object()?;
    let value = fields.get(name).or_else(|| fields.iter().find(|(key, _)| plain(key) == name).map(|(_, value)| value));
    value.filter(|value| !value.is_null())
}

/// The elements of a repeated member; one that is written without its brackets counts.
pub fn elements<'a>(object: &'a Value, name: &str) -> &'a [Value] {
    match member(object, name) {
        Some(Value::Array(elements)) => elements,
        Some(one) => std::slice::from_ref(one),
        None => &[],
    }
}

/// Checks a request against its message.
pub fn check(body: &Value, message: &'static Message, host: Host) -> Result<(), ApiError> {
    let mut checker = Checker { host, violations: Vec::new() };
    match body.as_object() {
        Some(fields) => checker.message(fields, message, ""),
        None => checker.violations.push((String::new(), "Invalid value: expected an object.".to_owned())),
    }
    if checker.violations.is_empty() {
        return Ok(());
    }
    let messages: Vec<&str> = checker.violations.iter().map(|(_, message)| message.as_str()).collect();
    let details: Vec<Value> = checker
        .violations
        .iter()
        .map(|(field, description)| match field.as_str() {
            "" => serde_json::json!({"description": description}),
            field => serde_json::json!({"field": field, "description": description}),
        })
        .collect();
    let details =
        serde_json::json!([{"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": details}]);
    Err(ApiError::invalid(messages.join("\n")).param(details.to_string()))
}

struct Checker {
    host: Host,
    /// Where, and what is wrong.
    violations: Vec<(String, String)>,
}

impl Checker {
    fn message(&mut self, fields: &Map<String, Value>, message: &'static Message, path: &str) {
        for (key, value) in fields {
            let name = plain(key);
            let known = |known: Known| match known {
                Everywhere => true,
                Gemini => self.host == Host::Gemini,
                Vertex => self.host.is_vertex(),
                Newest => self.host != Host::VertexStable,
            };
            let field = message.0.iter().find(|(field, where_known, _)| *field == name && known(*where_known));
            match field {
                Some((_, _, kind)) => {
                    let path = if path.is_empty() { name } else { format!("{path}.{name}") };
                    self.value(value, kind, &path);
                }
                None => {
                    let at = if path.is_empty() { String::new() } else { format!(" at '{path}'") };
                    let problem =
                        format!("Invalid JSON payload received. Unknown name \"{key}\"{at}: Cannot find field.");
                    self.violations.push((path.to_owned(), problem));
                }
            }
        }
    }

    fn value(&mut self, value: &Value, kind: &'static Type, path: &str) {
        let number = |text: &str| text.parse::<f64>().ok();
        let (fits, name) = match (kind, value) {
            (_, Value::Null) | (Any, _) => return,
            (Text, value) => (value.is_string(), "TYPE_STRING"),
            (Bytes, value) => (value.as_str().is_some_and(|text| bytes(text).is_some()), "TYPE_BYTES"),
            (Bool, value) => (value.is_boolean(), "TYPE_BOOL"),
            (Integer, value) => {
                let number = value.as_f64().or_else(|| value.as_str().and_then(number));
                (number.is_some_and(|number| number.fract() == 0.0), "TYPE_INT32")
            }
            (Float, value) => (value.is_number() || value.as_str().and_then(number).is_some(), "TYPE_FLOAT"),
            (Enum(names), value) => {
                let known = |text: &str| names.split(' ').any(|name| name.eq_ignore_ascii_case(text));
                (value.as_str().is_some_and(known) || value.is_u64(), "TYPE_ENUM")
            }
            (Struct, value) => (value.is_object(), "type.googleapis.com/google.protobuf.Struct"),
            (Type::Message(message), Value::Object(fields)) => return self.message(fields, message, path),
            (Type::Message(_), Value::Array(_)) => {
                let problem = format!("Invalid value at '{path}': Proto field is not repeating, cannot start list.");
                return self.violations.push((path.to_owned(), problem));
            }
            (Type::Message(_), _) => (false, "a message"),
            (List(kind), Value::Array(values)) => {
                for (at, value) in values.iter().enumerate() {
                    self.value(value, kind, &format!("{path}[{at}]"));
                }
                return;
            }
            (List(kind), value) => return self.value(value, kind, path),
            (Type::Map(kind), Value::Object(fields)) => {
                for (at, value) in fields.values().enumerate() {
                    self.value(value, kind, &format!("{path}[{at}].value"));
                }
                return;
            }
            (Type::Map(_), _) => (false, "a map"),
        };
        if !fits {
            let problem = format!("Invalid value at '{path}' ({name}), {value}");
            self.violations.push((path.to_owned(), problem));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn problem(body: Value, host: Host) -> String {
        check(&body, &GENERATE, host).map_or_else(|error| error.message, |()| String::new())
    }

    #[test]
    fn an_unknown_name_is_refused_wherever_it_stands() {
        for (body, expected) in [
            (json!({"stream": true}), "Unknown name \"stream\": Cannot find field."),
            (json!({"generationConfig": {"maxTokens": 1}}), "Unknown name \"maxTokens\" at 'generation_config'"),
            (
                json!({"contents": [{"parts": [{"text": "a", "cache": 1}]}]}),
                "Unknown name \"cache\" at 'contents[0].parts[0]'",
            ),
            (
                json!({"contents": [{"parts": {"text": "a", "role": 1}}]}),
                "Unknown name \"role\" at 'contents[0].parts': Cannot find field.",
            ),
            (
                json!({"tools": [{"functionDeclarations": [{"parameters": {"properties": {"a": {"const": 1}}}}]}]}),
                "Unknown name \"const\" at 'tools[0].function_declarations[0].parameters.properties[0].value'",
            ),
            (
                json!({"generationConfig": {"responseSchema": {"anyOf": [{"$ref": "#"}]}}}),
                "Unknown name \"$ref\" at 'generation_config.response_schema.any_of[0]'",
            ),
        ] {
            assert!(problem(body.clone(), Host::Gemini).contains(expected), "{}", problem(body, Host::Gemini));
        }
    }

    #[test]
    fn names_are_taken_in_both_spellings_and_lists_without_brackets() {
        let body = json!({
            "system_instruction": {"parts": {"text": "a"}},
            "generationConfig": {"top_p": 0.5, "topK": "3", "thinking_config": {"includeThoughts": true}},
            "tools": {"function_declarations": [{"name": "f", "parametersJsonSchema": {"$ref": "#", "x": 1}}]},
            "contents": null,
        });
        assert_eq!(problem(body, Host::Gemini), "");
    }

    #[test]
    fn values_have_their_types() {
        for (body, expected) in [
            (json!({"contents": [{"role": 1}]}), "'contents[0].role' (TYPE_STRING), 1"),
            (json!({"generationConfig": {"temperature": "hot"}}), "(TYPE_FLOAT), \"hot\""),
            (json!({"generationConfig": {"maxOutputTokens": 1.5}}), "(TYPE_INT32)"),
            (json!({"contents": [{"parts": [{"functionResponse": {"response": "text"}}]}]}), "protobuf.Struct"),
            (json!({"contents": [{"parts": [{"functionCall": {"args": []}}]}]}), "protobuf.Struct"),
            (json!({"contents": [{"parts": [{"inlineData": {"data": "*"}}]}]}), "TYPE_BYTES"),
            (json!({"systemInstruction": [{"parts": []}]}), "Proto field is not repeating"),
            (json!({"systemInstruction": "text"}), "Invalid value at 'system_instruction'"),
            (json!({"toolConfig": {"functionCallingConfig": {"mode": "REQUIRED"}}}), "(TYPE_ENUM), \"REQUIRED\""),
            (json!({"generationConfig": {"responseSchema": {"type": ["string", "null"]}}}), "(TYPE_ENUM)"),
        ] {
            assert!(problem(body.clone(), Host::Gemini).contains(expected), "{}", problem(body, Host::Gemini));
        }
        assert_eq!(problem(json!({"generationConfig": {"responseSchema": {"type": "object"}}}), Host::Gemini), "");
    }

    #[test]
    fn the_two_hosts_know_different_members() {
        let labels = json!({"labels": {"a": "b"}});
        assert_eq!(problem(labels.clone(), Host::Vertex), "");
        assert!(problem(labels, Host::Gemini).contains("labels"));
        let call = json!({"contents": [{"parts": [{"functionCall": {"name": "f", "id": "1"}}]}]});
        assert_eq!(problem(call.clone(), Host::Gemini), "");
        assert_eq!(problem(call.clone(), Host::Vertex), "");
        assert!(
            problem(call, Host::VertexStable).contains("Unknown name \"id\" at 'contents[0].parts[0].function_call'")
        );
        assert!(check(&json!({"tools": []}), &COUNT, Host::Gemini).is_err());
        assert!(check(&json!({"tools": []}), &COUNT, Host::Vertex).is_ok());
    }

    #[test]
    fn every_violation_is_told_with_its_place() {
        let error = check(&json!({"a": 1, "contents": [{"b": 2}]}), &GENERATE, Host::Gemini).unwrap_err();
        assert_eq!(error.message.lines().count(), 2);
        let details: Value = serde_json::from_str(&error.param.unwrap()).unwrap();
        let violations = details[0]["fieldViolations"].as_array().unwrap();
        assert!(violations[0].get("field").is_none());
        assert_eq!(violations[1]["field"], "contents[0]");
    }
}
