//! Pictures: made from a prompt, and changed.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

use crate::directives::{self, Directives};
use crate::endpoint::Endpoint;
use crate::http::Request;
use crate::journal::{Route, unix_ms};
use crate::openai::{check_bool, check_integer, error_body, mid_stream_error, missing};
use crate::reply::{ApiError, Reply, put};
use crate::server::App;
use crate::side::{check_length, check_word, demand, last_text, object, tokens};
use crate::wire::{Event, EventStream, Framing, Kind};

/// A picture of one pixel, in PNG.
const PIXEL: &[u8] = &[
    0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 0x0d, 0x49, 0x48, 0x44, 0x52, 0, 0, 0, 1, 0, 0, 0, 1, 8,
    6, 0, 0, 0, 0x1f, 0x15, 0xc4, 0x89, 0, 0, 0, 0x0d, 0x49, 0x44, 0x41, 0x54, 0x78, 0x9c, 0x63, 0xf8, 0xcf, 0xc0,
    0xf0, 0x1f, 0, 5, 0, 1, 0xff, 0x56, 0xc7, 0x2f, 0x0d, 0, 0, 0, 0, 0x49, 0x45, 0x4e, 0x44, 0xae, 0x42, 0x60, 0x82,
];
/// Tokens that a picture of middling quality is billed as.
const PICTURE_TOKENS: u64 = 1056;
/// Tokens that a picture to be changed counts for.
const INPUT_PICTURE_TOKENS: u64 = 323;

/// The two endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Images {
    Generations,
    Edits,
}

/// A request that passed the checks.
#[derive(Debug)]
struct Asked<'a> {
    prompt: Cow<'a, str>,
    /// A model of the `dall-e` family: no usage, addresses instead of data.
    old: bool,
    count: usize,
    url: bool,
    stream: bool,
    partial: usize,
    /// Pictures that came with the request.
    pictures: usize,
    size: String,
    quality: String,
}

impl Endpoint for Images {
    fn route(&self) -> Route {
        Route::Images
    }

    fn user_text<'a>(&self, body: &'a Value) -> Option<Cow<'a, str>> {
        last_text(body, "prompt")
    }

    fn respond(
        &self,
        _: &App,
        request: &Request<'_>,
        body: &Value,
        directives: &Directives,
    ) -> Result<Reply, ApiError> {
        let form = request.form.and_then(|form| form.as_ref().ok());
        let pictures = form.map(|form| form.files("image").count());
        let asked = check(*self, body, pictures)?;
        Ok(self.reply(&asked, directives))
    }
}

/// Numbers and truth values that come as texts in a form, as what they are.
pub fn typed(fields: &Map<String, Value>) -> Map<String, Value> {
    let typed = |value: &Value| match value.as_str() {
        Some("true") => json!(true),
        Some("false") => json!(false),
        Some(text) => match text.parse::<i64>() {
            Ok(number) => json!(number),
            Err(_) => text.parse::<f64>().map_or_else(|_| value.clone(), |number| json!(number)),
        },
        None => value.clone(),
    };
    fields
        .iter()
        .map(|(name, value)| (name.clone(), if name == "prompt" { value.clone() } else { typed(value) }))
        .collect()
}

fn check(endpoint: Images, body: &Value, uploaded: Option<usize>) -> Result<Asked<'_>, ApiError> {
    let given = object(body)?;
    let fields = if uploaded.is_some() { &typed(given) } else { given };
    let prompt = demand(given, "prompt")?;
    let model = match fields.get("model") {
        None | Some(Value::Null) => "gpt-image-1",
        _ => demand(given, "model")?,
    };
    let old = model.starts_with("dall-e");
    check_length("prompt", prompt, if old { 4000 } else { 32_000 })?;
    let field = |name: &str| fields.get(name).filter(|value| !value.is_null());
    let most = if model == "dall-e-3" { 1 } else { 10 };
    let count = check_integer("n", field("n"), 1, most)?.unwrap_or(1);
    check_word(fields, "output_format", &["png", "jpeg", "webp"])?;
    check_word(fields, "background", &["transparent", "opaque", "auto"])?;
    check_word(fields, "quality", &["standard", "hd", "low", "medium", "high", "auto"])?;
    check_integer("output_compression", field("output_compression"), 0, 100)?;
    let partial = check_integer("partial_images", field("partial_images"), 0, 3)?.unwrap_or(0);
    if old {
        check_word(fields, "response_format", &["url", "b64_json"])?;
    } else if field("response_format").is_some() && model.starts_with("gpt-image") {
        let unknown = ApiError::invalid("Unknown parameter: 'response_format'.");
        return Err(unknown.param("response_format").code("unknown_parameter"));
    }
    let pictures = match endpoint {
        Images::Generations => 0,
        Images::Edits => {
            let named = given.get("images").and_then(Value::as_array).map_or(0, Vec::len);
            match uploaded.unwrap_or(named) {
                0 => return Err(missing("image")),
                count => count,
            }
        }
    };
    let word = |name: &str, default: &str| field(name).and_then(Value::as_str).unwrap_or(default).to_owned();
    Ok(Asked {
        prompt: directives::extract(prompt).0,
        old,
        count: usize::try_from(count).unwrap_or(1),
        url: old && word("response_format", "url") == "url",
        stream: check_bool("stream", field("stream"))?.unwrap_or(false) && !old,
        partial: usize::try_from(partial).unwrap_or(0),
        pictures,
        size: word("size", "1024x1024"),
        quality: word("quality", "medium"),
    })
}

impl Images {
    fn reply(self, asked: &Asked<'_>, directives: &Directives) -> Reply {
        let mut picture = PIXEL.to_vec();
        picture.resize(directives.big_reply.unwrap_or(0).max(PIXEL.len()), 0);
        let data = BASE64.encode(picture);
        let created = unix_ms() / 1000;
        let text_tokens = tokens(&asked.prompt);
        let picture_tokens = INPUT_PICTURE_TOKENS.saturating_mul(asked.pictures as u64);
        let input = directives.usage_in.unwrap_or(text_tokens.saturating_add(picture_tokens));
        let output = directives.usage_out.unwrap_or(PICTURE_TOKENS.saturating_mul(asked.count as u64));
        let usage = json!({
            "total_tokens": input.saturating_add(output), "input_tokens": input, "output_tokens": output,
            "input_tokens_details": {"text_tokens": text_tokens, "image_tokens": picture_tokens},
        });
        let shape = json!({
            "background": "opaque", "output_format": "png", "quality": asked.quality, "size": asked.size,
        });
        if asked.stream {
            let kind = if self == Self::Edits { "image_edit" } else { "image_generation" };
            return Reply::stream(
                "text/event-stream; charset=utf-8",
                stream(kind, asked, &data, &shape, usage, directives),
            );
        }
        let one = match (asked.url, asked.old) {
            (true, _) => json!({"url": "https://example.com/picture.png", "revised_prompt": asked.prompt}),
            (false, true) => json!({"b64_json": data, "revised_prompt": asked.prompt}),
            (false, false) => json!({"b64_json": data}),
        };
        let mut reply = json!({"created": created, "data": vec![one; asked.count]});
        if !asked.old {
            extend(&mut reply, &shape);
            if !directives.no_usage {
                put(&mut reply, "usage", usage);
            }
        }
        Reply::json(200, reply.to_string())
    }
}

fn extend(object: &mut Value, more: &Value) {
    for (name, value) in more.as_object().into_iter().flatten() {
        put(object, name, value.clone());
    }
}

fn stream(
    kind: &str,
    asked: &Asked<'_>,
    data: &str,
    shape: &Value,
    usage: Value,
    directives: &Directives,
) -> EventStream {
    let error = error_body(&mid_stream_error(directives));
    let mut events = EventStream::new(Framing::Sse, Event::fixed(Kind::Done, Some("error"), error));
    let (partial, completed) = match kind {
        "image_edit" => ("image_edit.partial_image", "image_edit.completed"),
        _ => ("image_generation.partial_image", "image_generation.completed"),
    };
    let event = |name: &str| {
        let mut event = json!({"type": name, "b64_json": data, "created_at": unix_ms() / 1000});
        extend(&mut event, shape);
        event
    };
    for number in 0..asked.partial {
        let mut event = event(partial);
        put(&mut event, "partial_image_index", json!(number));
        events.push(Kind::Content, Some(partial), event.to_string());
    }
    let mut last = event(completed);
    if !directives.no_usage {
        put(&mut last, "usage", usage);
    }
    let kind = if directives.no_done { Kind::Done } else { Kind::Finish };
    events.push(kind, Some(completed), last.to_string());
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(endpoint: Images, body: &Value) -> ApiError {
        check(endpoint, body, None).err().unwrap_or_else(|| panic!("{body} passes"))
    }

    #[test]
    fn generations_have_the_bounds_of_the_api() {
        for (name, value, code) in [
            ("prompt", Value::Null, "missing_required_parameter"),
            ("n", json!(11), "integer_above_max_value"),
            ("partial_images", json!(4), "integer_above_max_value"),
            ("output_compression", json!(101), "integer_above_max_value"),
            ("output_format", json!("gif"), "invalid_value"),
            ("background", json!("red"), "invalid_value"),
            ("quality", json!("best"), "invalid_value"),
            ("response_format", json!("url"), "unknown_parameter"),
            ("prompt", json!("x".repeat(32_001)), "string_above_max_length"),
        ] {
            let mut body = json!({"model": "gpt-image-1", "prompt": "A hill"});
            put(&mut body, name, value);
            let error = refusal(Images::Generations, &body);
            assert_eq!((error.param.as_deref(), error.code.as_deref()), (Some(name), Some(code)));
        }
        let old = json!({"model": "dall-e-3", "prompt": "A hill", "n": 2});
        assert_eq!(refusal(Images::Generations, &old).param.as_deref(), Some("n"));
        let old = json!({"model": "dall-e-3", "prompt": "A hill", "response_format": "b64_json"});
        assert!(!check(Images::Generations, &old, None).unwrap().url);
    }

    #[test]
    fn an_edit_needs_a_picture() {
        let body = json!({"prompt": "A hill", "n": "2", "stream": "true"});
        assert_eq!(refusal(Images::Edits, &body.clone()).code.as_deref(), Some("invalid_type"));
        assert_eq!(check(Images::Edits, &body, Some(0)).unwrap_err().param.as_deref(), Some("image"));
        let asked = check(Images::Edits, &body, Some(2)).unwrap();
        assert_eq!((asked.count, asked.stream, asked.pictures), (2, true, 2));
        let named = json!({"prompt": "A hill", "images": [{"file_id": "file-1"}]});
        assert_eq!(check(Images::Edits, &named, None).unwrap().pictures, 1);
    }
}
