//! Sound: text spoken, speech written down.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

use crate::answer::{self, Answer, Conversation, Limits, Want, fnv};
use crate::directives::{self, Directives};
use crate::endpoint::Endpoint;
use crate::http::Request;
use crate::images::typed;
use crate::journal::Route;
use crate::multipart::Part;
use crate::openai::{check_bool, check_decimal, error_body, invalid_value, mid_stream_error, missing};
use crate::reply::{ApiError, Reply, put};
use crate::server::App;
use crate::side::{check_length, check_word, demand, last_text, object, tokens};
use crate::wire::{Event, EventStream, Framing, Kind, Template};

/// Longest text that is spoken, in characters.
const MAX_SPOKEN: usize = 4096;
/// Longest sound that OpenAI's own models hear, in bytes.
const MAX_HEARD: u64 = 25 * 1024 * 1024;
/// Bytes of sound in a second, for its length.
const BYTES_A_SECOND: u64 = 32_000;
/// What sounds may be packed in.
const SOUNDS: [&str; 10] = ["flac", "m4a", "mp3", "mp4", "mpeg", "mpga", "oga", "ogg", "wav", "webm"];

// --- Speech --------------------------------------------------------------------------------------------------

/// `POST …/audio/speech`.
#[derive(Debug)]
pub struct Speech;

impl Endpoint for Speech {
    fn route(&self) -> Route {
        Route::Audio
    }

    fn user_text<'a>(&self, body: &'a Value) -> Option<Cow<'a, str>> {
        last_text(body, "input")
    }

    fn respond(&self, _: &App, _: &Request<'_>, body: &Value, directives: &Directives) -> Result<Reply, ApiError> {
        let (input, format, events) = check_speech(body)?;
        let answer = sound(&input, directives);
        if events {
            let stream = spoken_events(&input, &answer, directives);
            return Ok(Reply::stream("text/event-stream; charset=utf-8", stream));
        }
        let kind = match format {
            "opus" => "audio/opus",
            "aac" => "audio/aac",
            "flac" => "audio/flac",
            "wav" => "audio/wav",
            "pcm" => "audio/pcm",
            _ => "audio/mpeg",
        };
        if directives.whole {
            return Ok(Reply::whole(kind, answer.text));
        }
        let mut stream = EventStream::new(Framing::Raw, Event::fixed(Kind::Done, None, String::new()));
        let template =
            stream.template(Template { name: None, head: String::new(), source: answer.text, tail: String::new() });
        for piece in &answer.pieces {
            stream.push_delta(template, *piece);
        }
        Ok(Reply::stream(kind, stream))
    }
}

/// Letters that stand for the sound; what goes out is no text, see [`Framing::Raw`].
fn sound(input: &str, directives: &Directives) -> Answer {
    let mut conversation = Conversation { question: input.to_owned(), ..Conversation::default() };
    conversation.hash_text(input);
    let long = Directives { big_reply: directives.big_reply.or(Some(input.len() * 64)), ..Directives::default() };
    let shaped = directives.chunks.is_some() || directives.text.is_some();
    let directives = if shaped { directives } else { &long };
    answer::compose(&conversation, directives, Want::Prose, &Limits::default(), 0)
}

fn spoken_events(input: &str, answer: &Answer, directives: &Directives) -> EventStream {
    let error = error_body(&mid_stream_error(directives));
    let mut events = EventStream::new(Framing::Sse, Event::fixed(Kind::Done, Some("error"), error));
    for (from, to) in &answer.pieces {
        let piece = answer.text.get(*from as usize..*to as usize).unwrap_or_default();
        let delta = json!({"type": "speech.audio.delta", "audio": BASE64.encode(piece)});
        events.push(Kind::Content, None, delta.to_string());
    }
    let heard = directives.usage_in.unwrap_or(tokens(input));
    let said = directives.usage_out.unwrap_or(answer.tokens());
    let mut done = json!({"type": "speech.audio.done"});
    if !directives.no_usage {
        let total = heard.saturating_add(said);
        put(&mut done, "usage", json!({"input_tokens": heard, "output_tokens": said, "total_tokens": total}));
    }
    let kind = if directives.no_done { Kind::Done } else { Kind::Finish };
    events.push(kind, None, done.to_string());
    events
}

/// The text, the format, and whether events are wanted.
fn check_speech(body: &Value) -> Result<(Cow<'_, str>, &str, bool), ApiError> {
    let fields = object(body)?;
    let model = demand(fields, "model")?;
    let input = demand(fields, "input")?;
    if input.is_empty() {
        return Err(ApiError::invalid(
            "Invalid 'input': string too short. Expected a string with minimum length 1, but got an empty string \
             instead.",
        )
        .param("input")
        .code("string_below_min_length"));
    }
    check_length("input", input, MAX_SPOKEN)?;
    match fields.get("voice") {
        // A voice of one's own is named by an object.
        Some(Value::Object(_)) => {}
        _ => {
            demand(fields, "voice")?;
        }
    }
    check_word(fields, "response_format", &["mp3", "opus", "aac", "flac", "wav", "pcm"])?;
    check_word(fields, "stream_format", &["audio", "sse"])?;
    check_decimal("speed", fields.get("speed").filter(|speed| !speed.is_null()), 0.25, 4.0)?;
    let events = fields.get("stream_format").is_some_and(|format| format == "sse");
    if events && model.starts_with("tts-1") {
        return Err(invalid_value("stream_format", format!("'sse' is not supported with the model '{model}'.")));
    }
    let format = fields.get("response_format").and_then(Value::as_str).unwrap_or("mp3");
    Ok((directives::extract(input).0, format, events))
}

// --- Transcriptions and translations -------------------------------------------------------------------------

/// `POST …/audio/transcriptions` and `…/audio/translations`. Directives stand in `prompt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hearing {
    Transcription,
    Translation,
}

/// A request that passed the checks.
#[derive(Debug)]
struct Heard<'a> {
    model: &'a str,
    format: &'a str,
    stream: bool,
    prompt: Cow<'a, str>,
}

impl Endpoint for Hearing {
    fn route(&self) -> Route {
        Route::Audio
    }

    fn user_text<'a>(&self, body: &'a Value) -> Option<Cow<'a, str>> {
        last_text(body, "prompt")
    }

    fn unreadable(&self, error: &str) -> ApiError {
        ApiError::invalid(format!("Could not parse multipart form: {error}"))
    }

    fn respond(
        &self,
        _: &App,
        request: &Request<'_>,
        body: &Value,
        directives: &Directives,
    ) -> Result<Reply, ApiError> {
        let Some(Ok(form)) = request.form else {
            let given = request.header("content-type").unwrap_or_default();
            return Err(ApiError::invalid(format!(
                "Invalid Content-Type header ({given}), expected multipart/form-data. (HINT: If you're using curl, you \
                 can pass -H 'Content-Type: multipart/form-data')"
            )));
        };
        let file = form.files("file").next();
        let asked = check_heard(*self, body, file)?;
        let (bytes, hash) = file.map_or((0, ""), |file| (file.bytes, file.sha256.as_str()));
        Ok(self.reply(&asked, bytes, hash, directives))
    }
}

fn check_heard<'a>(endpoint: Hearing, body: &'a Value, file: Option<&Part>) -> Result<Heard<'a>, ApiError> {
    let given = object(body)?;
    let fields = typed(given);
    let Some(file) = file else { return Err(missing("file")) };
    let model = demand(given, "model")?;
    let openai = model == "whisper-1" || model.starts_with("gpt-4o");
    if openai {
        let name = file.filename.as_deref().unwrap_or_default();
        let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase()).unwrap_or_default();
        if !SOUNDS.contains(&ending.as_str()) {
            return Err(ApiError::invalid(format!(
                "Invalid file format. Supported formats: ['{}']",
                SOUNDS.join("', '")
            )));
        }
        if file.bytes > MAX_HEARD {
            let message = format!("Maximum content size limit ({MAX_HEARD}) exceeded ({} bytes read)", file.bytes);
            return Err(ApiError::new(413, message));
        }
    }
    check_word(&fields, "response_format", &["json", "text", "srt", "verbose_json", "vtt", "diarized_json"])?;
    check_decimal("temperature", fields.get("temperature"), 0.0, 1.0)?;
    let format = given.get("response_format").and_then(Value::as_str).unwrap_or("json");
    if model.starts_with("gpt-4o") && !["json", "text", "diarized_json"].contains(&format) {
        return Err(ApiError::invalid(format!(
            "response_format '{format}' is not compatible with model '{model}'. Use 'json' or 'text' instead."
        ))
        .param("response_format")
        .code("unsupported_value"));
    }
    if fields.contains_key("timestamp_granularities") && format != "verbose_json" {
        return Err(ApiError::invalid("'timestamp_granularities' needs the response format 'verbose_json'.")
            .param("timestamp_granularities"));
    }
    // Older models ignore it, and translations have no streams.
    let stream = check_bool("stream", fields.get("stream"))?.unwrap_or(false);
    Ok(Heard {
        model,
        format,
        stream: stream && model != "whisper-1" && endpoint == Hearing::Transcription,
        prompt: given.get("prompt").and_then(Value::as_str).map(|text| directives::extract(text).0).unwrap_or_default(),
    })
}

impl Hearing {
    fn reply(self, asked: &Heard<'_>, bytes: u64, hash: &str, directives: &Directives) -> Reply {
        let mut conversation = Conversation { question: asked.prompt.clone().into_owned(), ..Conversation::default() };
        conversation.hash = fnv(0, hash.as_bytes());
        let answer = answer::compose(&conversation, directives, Want::Prose, &Limits::default(), 0);
        let seconds = bytes.div_ceil(BYTES_A_SECOND);
        // OpenAI's first model is billed by time, the later ones by tokens.
        let usage = if asked.model.starts_with("whisper") {
            json!({"type": "duration", "seconds": seconds})
        } else {
            let sound = seconds.saturating_mul(10);
            let text = tokens(&asked.prompt);
            let input = directives.usage_in.unwrap_or(sound.saturating_add(text));
            let output = directives.usage_out.unwrap_or(answer.tokens());
            json!({
                "type": "tokens", "total_tokens": input.saturating_add(output), "input_tokens": input,
                "input_token_details": {"text_tokens": text, "audio_tokens": sound}, "output_tokens": output,
            })
        };
        if asked.stream {
            return Reply::stream("text/event-stream; charset=utf-8", heard_events(&answer, usage, directives));
        }
        let text = &answer.text;
        let plain =
            |kind: &'static str, body: String| Reply { content_type: Cow::Borrowed(kind), ..Reply::json(200, body) };
        let mut reply = match asked.format {
            "text" => return plain("text/plain; charset=utf-8", format!("{text}\n")),
            "srt" => {
                return plain("text/plain; charset=utf-8", format!("1\n00:00:00,000 --> 00:00:01,000\n{text}\n\n"));
            }
            "vtt" => {
                return plain(
                    "text/vtt; charset=utf-8",
                    format!("WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n{text}\n\n"),
                );
            }
            "verbose_json" => json!({
                "task": if self == Self::Translation { "translate" } else { "transcribe" },
                "language": "english", "duration": seconds as f64, "text": text,
                "segments": [{"id": 0, "seek": 0, "start": 0.0, "end": seconds as f64, "text": text}],
            }),
            _ => json!({"text": text}),
        };
        if !directives.no_usage && self == Self::Transcription {
            put(&mut reply, "usage", usage);
        }
        Reply::json(200, reply.to_string())
    }
}

fn heard_events(answer: &Answer, usage: Value, directives: &Directives) -> EventStream {
    let error = error_body(&mid_stream_error(directives));
    let mut events = EventStream::new(Framing::Sse, Event::fixed(Kind::Done, Some("error"), error));
    let template = events.template(Template {
        name: None,
        head: r#"{"type":"transcript.text.delta","delta":"#.to_owned(),
        source: answer.text.clone(),
        tail: "}".to_owned(),
    });
    for piece in &answer.pieces {
        events.push_delta(template, *piece);
    }
    let mut done: Map<String, Value> = Map::new();
    done.insert("type".to_owned(), json!("transcript.text.done"));
    done.insert("text".to_owned(), json!(answer.text));
    if !directives.no_usage {
        done.insert("usage".to_owned(), usage);
    }
    let kind = if directives.no_done { Kind::Done } else { Kind::Finish };
    events.push(kind, None, Value::Object(done).to_string());
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speech_has_the_bounds_of_the_api() {
        for (name, value) in [
            ("model", Value::Null),
            ("input", Value::Null),
            ("input", json!("")),
            ("input", json!("x".repeat(4097))),
            ("voice", Value::Null),
            ("response_format", json!("midi")),
            ("stream_format", json!("morse")),
            ("speed", json!(5)),
        ] {
            let mut body = json!({"model": "gpt-4o-mini-tts", "input": "Hi", "voice": "alloy"});
            put(&mut body, name, value);
            assert_eq!(check_speech(&body).unwrap_err().param.as_deref(), Some(name));
        }
        let old = json!({"model": "tts-1", "input": "Hi", "voice": "alloy", "stream_format": "sse"});
        assert_eq!(check_speech(&old).unwrap_err().param.as_deref(), Some("stream_format"));
        assert!(check_speech(&json!({"model": "m", "input": "Hi", "voice": {"id": "v"}})).is_ok());
    }

    fn file(name: &str, bytes: u64) -> Part {
        Part {
            name: "file".to_owned(),
            filename: Some(name.to_owned()),
            content_type: None,
            bytes,
            sha256: String::new(),
            value: None,
        }
    }

    fn heard(body: &Value, file: Option<&Part>) -> Result<bool, ApiError> {
        check_heard(Hearing::Transcription, body, file).map(|heard| heard.stream)
    }

    #[test]
    fn what_is_heard_needs_a_file_and_a_model() {
        let body = json!({"model": "whisper-1"});
        assert_eq!(heard(&body, None).unwrap_err().param.as_deref(), Some("file"));
        let sound = file("a.wav", 9);
        assert_eq!(heard(&json!({}), Some(&sound)).unwrap_err().param.as_deref(), Some("model"));
        assert!(heard(&body, Some(&file("a.txt", 9))).unwrap_err().message.starts_with("Invalid file format"));
        assert_eq!(heard(&body, Some(&file("a.wav", MAX_HEARD + 1))).unwrap_err().status, 413);
        assert!(heard(&json!({"model": "other"}), Some(&file("a", MAX_HEARD + 1))).is_ok());
        for (name, value) in [
            ("response_format", "xml"),
            ("response_format", "srt"),
            ("temperature", "1.5"),
            ("stream", "perhaps"),
            ("timestamp_granularities", "word"),
        ] {
            let mut body = json!({"model": "gpt-4o-transcribe"});
            put(&mut body, name, json!(value));
            assert_eq!(heard(&body, Some(&sound)).unwrap_err().param.as_deref(), Some(name), "{value}");
        }
    }

    #[test]
    fn only_newer_models_stream() {
        let sound = file("a.wav", 9);
        assert!(heard(&json!({"model": "gpt-4o-transcribe", "stream": "true"}), Some(&sound)).unwrap());
        assert!(!heard(&json!({"model": "whisper-1", "stream": "true"}), Some(&sound)).unwrap());
        let body = json!({"model": "gpt-4o-transcribe", "stream": "true"});
        assert!(!check_heard(Hearing::Translation, &body, Some(&sound)).unwrap().stream);
    }
}
