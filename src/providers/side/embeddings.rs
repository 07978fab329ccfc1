//! Embeddings in OpenAI's form, read and written.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

use super::SideAsked;
use crate::error::Problem;
use crate::protocol::chat::ReplyFault;
use crate::protocol::usage::Told;
use crate::providers::notes::Notes;

/// A request.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The texts, at least one.
    pub texts: Vec<&'a str>,
    /// How many numbers each embedding is to have.
    pub dimensions: Option<u64>,
    body: &'a Value,
}

/// Members that each translation knows.
const KNOWN: &[&str] = &["model", "input", "encoding_format", "dimensions", "user"];

impl<'a> Asked<'a> {
    /// Reads a request to a provider that takes up to `most` texts; `extras` are members of its own that callers may send.
    ///
    /// # Errors
    /// A 400 naming the place at fault.
    pub fn read(body: &'a Value, most: usize, extras: &[&str], notes: &mut Notes) -> Result<Self, Problem> {
        if let Some(members) = body.as_object() {
            notes.foreign(members, &[KNOWN, extras].concat())?;
        }
        let input = body.get("input").unwrap_or(&Value::Null);
        let list = match input {
            Value::Array(list) => list.as_slice(),
            one => std::slice::from_ref(one),
        };
        let text = |(nth, value): (usize, &'a Value)| match value.as_str() {
            Some("") => Err(at(input, nth, "must not be empty")),
            Some(text) => Ok(text),
            None => Err(at(input, nth, "must be a text: the provider of this model takes no tokens, and nothing else")),
        };
        let texts = list.iter().enumerate().map(text).collect::<Result<Vec<_>, _>>()?;
        if texts.len() > most {
            let texts = texts.len();
            let message =
                format!("input: has {texts} texts; this model takes {most} in one request. Send them in several.");
            return Err(Problem::invalid("input", message));
        }
        let dimensions = match body.get("dimensions") {
            None | Some(Value::Null) => None,
            Some(value) => Some(
                value
                    .as_u64()
                    .filter(|it| *it > 0)
                    .ok_or_else(|| Problem::invalid("dimensions", "dimensions: must be a whole number, 1 or more."))?,
            ),
        };
        match body.get("encoding_format") {
            None | Some(Value::Null) => {}
            Some(Value::String(form)) if form == "float" || form == "base64" => {}
            Some(_) => {
                return Err(Problem::invalid("encoding_format", "encoding_format: must be `float` or `base64`."));
            }
        }
        Ok(Self { texts, dimensions, body })
    }

    /// A text of the caller's under this name, or what is usual.
    pub fn text_or(&self, name: &str, usual: &'static str) -> Result<&'a str, Problem> {
        self.text(name).map(|text| text.unwrap_or(usual))
    }

    /// A text of the caller's under this name.
    ///
    /// # Errors
    /// A 400 if it is none.
    pub fn text(&self, name: &str) -> Result<Option<&'a str>, Problem> {
        match self.body.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Problem::invalid(name, format!("{name}: must be a string."))),
        }
    }
}

fn at(input: &Value, nth: usize, what: &str) -> Problem {
    let place = if input.is_array() { format!("input[{nth}]") } else { "input".to_owned() };
    Problem::invalid(&place, format!("{place}: {what}."))
}

/// What of a request its reply depends on.
pub fn echo(body: &Value) -> Map<String, Value> {
    let texts = body.get("input").and_then(Value::as_array).map_or(1, Vec::len);
    let form = body.get("encoding_format").cloned().unwrap_or_default();
    [("texts".to_owned(), json!(texts)), ("encoding_format".to_owned(), form)].into_iter().collect()
}

/// The caller's reply, from one list of numbers for each text.
///
/// # Errors
/// [`ReplyFault::Malformed`] if there are not as many, or if one is no such list.
pub fn reply(
    vectors: &[&Value],
    told: Option<Told>,
    asked: &SideAsked<'_>,
) -> Result<(Value, Option<Told>), ReplyFault> {
    let wanted = asked.members.get("texts").and_then(Value::as_u64).unwrap_or(vectors.len() as u64);
    if vectors.is_empty() || vectors.len() as u64 != wanted {
        let vectors = vectors.len();
        return Err(ReplyFault::Malformed(format!("it has {vectors} embeddings for {wanted} texts")));
    }
    let packed = asked.members.get("encoding_format").is_some_and(|form| form == "base64");
    let mut data = Vec::with_capacity(vectors.len());
    for (index, vector) in vectors.iter().enumerate() {
        let numbers = vector.as_array().filter(|list| !list.is_empty() && list.iter().all(Value::is_number));
        let Some(numbers) = numbers else {
            return Err(ReplyFault::Malformed("an embedding in it is no list of numbers".to_owned()));
        };
        let embedding = if packed { json!(pack(numbers)) } else { (*vector).clone() };
        data.push(json!({"object": "embedding", "index": index, "embedding": embedding}));
    }
    let mut reply = json!({"object": "list", "data": data, "model": asked.model});
    if let (Some(told), Some(members)) = (&told, reply.as_object_mut()) {
        let tokens = told.usage.input_total();
        members.insert("usage".to_owned(), json!({"prompt_tokens": tokens, "total_tokens": tokens}));
    }
    Ok((reply, told))
}

/// Numbers as OpenAI packs them: 32-bit floats, least significant byte first.
fn pack(numbers: &[Value]) -> String {
    let float = |number: &Value| (number.as_f64().unwrap_or_default() as f32).to_le_bytes();
    BASE64.encode(numbers.iter().flat_map(float).collect::<Vec<u8>>())
}
