//! Requests that come as forms: transcriptions, translations, edits of images. Their bytes are passed on as they come, with
//! another model's name in them; the rest of the way they go as the few fields that the gateway looks at, written as JSON.

use serde_json::{Map, Value};

use crate::error::Problem;
use crate::http::routes::decode;
use crate::protocol::multipart::{Form, MultipartFault};
use crate::protocol::sound;

/// The fields that are looked at; the value of the first is replaced.
pub const FIELDS: &[&str] = &["model", "stream", "n"];

/// How long the form's file lasts if it is a recording, in milliseconds.
pub const SOUND_MS: &str = "sound_ms";

/// Names the model where it cannot be told by the form in time.
pub const MODEL_HEADER: &str = "x-gateway-model";

/// The model that a request names beside its form: in its header, or in its query.
pub fn named(header: Option<&str>, query: &str) -> Option<String> {
    let of_query = || {
        let value = query.split('&').find_map(|pair| pair.strip_prefix("model="))?;
        decode(&value.replace('+', " "))
    };
    header.map(str::trim).map(str::to_owned).or_else(of_query).filter(|name| !name.is_empty())
}

/// A form as the rest of the way takes it. `named` is the model that is named beside it, `bytes` how long all of it is.
///
/// # Errors
/// [`MultipartFault`] if a field is no text.
pub fn described(form: &Form, named: Option<&str>, bytes: u64) -> Result<Vec<u8>, MultipartFault> {
    let mut fields = Map::new();
    if let Some(model) = named.map_or_else(|| form.field("model"), |named| Ok(Some(named)))? {
        fields.insert("model".to_owned(), model.into());
    }
    // What cannot be read is the provider's to judge.
    for name in ["stream", "n"] {
        let value = form.field(name)?.and_then(|text| serde_json::from_str::<Value>(text.trim()).ok());
        if let Some(value) = value.filter(|value| value.is_boolean() || value.is_u64()) {
            fields.insert(name.to_owned(), value);
        }
    }
    fields.insert(SOUND_MS.to_owned(), sound::length_ms(form.file(), bytes).into());
    // Where it is needed it is in the form, or the provider says so.
    fields.insert("prompt".to_owned(), "".into());
    Ok(Value::Object(fields).to_string().into_bytes())
}

/// The refusal of a form whose model is not known when no more of it can be held.
pub fn model_after_file(held: usize) -> Problem {
    let message = format!(
        "model: has not come within the first {held} bytes of the form. Put `model` before the file, or name it in the \
         header {MODEL_HEADER}."
    );
    Problem { code: "model_after_file".to_owned(), ..Problem::invalid("model", message) }
}

/// The refusal of a body that is no form.
pub fn not_a_form() -> Problem {
    let message = "The body must be a form: multipart/form-data.";
    Problem { status: 415, code: "unsupported_media_type".to_owned(), ..Problem::invalid("content-type", message) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn described_as(fields: &[(&str, &str)], model: Option<&str>) -> Value {
        let mut form = Form::new("B", FIELDS);
        for (name, value) in fields {
            let part = format!("--B\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
            form.hold(part.as_bytes()).unwrap();
        }
        form.hold(b"--B--\r\n").unwrap();
        serde_json::from_slice(&described(&form, model, 2_000).unwrap()).unwrap()
    }

    #[test]
    fn a_form_is_described_by_the_fields_that_are_looked_at() {
        let fields = [("model", "m\""), ("stream", "true"), ("n", "2"), ("language", "de")];
        assert_eq!(
            described_as(&fields, None),
            json!({"model": "m\"", "stream": true, "n": 2, "prompt": "", "sound_ms": 1_000})
        );
        assert_eq!(described_as(&fields, Some("other"))["model"], "other");
        assert_eq!(described_as(&[("stream", "perhaps"), ("n", "-1")], None), json!({"prompt": "", "sound_ms": 1_000}));
    }

    #[test]
    fn a_model_may_be_named_beside_the_form() {
        assert_eq!(named(Some(" whisper "), "model=other").as_deref(), Some("whisper"));
        assert_eq!(named(None, "a=b&model=openai%2Fwhisper+1").as_deref(), Some("openai/whisper 1"));
        assert_eq!((named(None, "model="), named(None, "models=a"), named(None, "model=%zz")), (None, None, None));
    }
}
