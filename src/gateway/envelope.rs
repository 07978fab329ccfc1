//! Stage 1: what routing and limits need to know of a request, read from its raw bytes.
//!
//! Only the envelope's own fields are judged here. Everything else is the provider's to judge, or the translation's,
//! which names the exact place.

use std::cell::OnceCell;

use serde::de::IgnoredAny;
use serde_json::Value;

use super::estimate::{Family, InputBody};
use super::forms;
use crate::error::{Kind, Problem};
use crate::protocol::chat::ChatRequest;
use crate::protocol::inbound::inbound;
use crate::protocol::json_scan::{Member, Members, ScanLimits, ValueKind, scan_object};
use crate::protocol::usage::Usage;
use crate::providers::openai::scan_problem;
use crate::providers::{Api, Source};

/// The envelope of a request.
#[derive(Debug)]
pub struct Envelope<'a> {
    /// The API that it is for.
    pub api: Api,
    /// The body as it came.
    pub body: &'a [u8],
    /// What of it a model reads.
    pub input: InputBody<'a>,
    members: Members<'a>,
    /// The whole request, read once it is needed.
    chat: OnceCell<Result<ChatRequest, Problem>>,
    /// The model as the caller named it.
    pub model: String,
    /// Whether a streamed reply is asked for.
    pub stream: bool,
    /// Whether the caller wants the usage chunk at the end of a stream.
    pub include_usage: bool,
    /// The most output tokens that the caller allows, over all choices; `None` if it names no bound.
    pub max_output: Option<u64>,
    /// How many replies are asked for (`n`); at least one. Each may be as long as the model makes them.
    pub choices: u64,
    /// The service tier that the caller asks for, as it names it.
    pub service_tier: Option<String>,
    /// What is going to be used of what is charged by the piece.
    pub pieces: Usage,
    /// The mark of the caller's account on responses that are kept; `None` until somebody gives it.
    pub mark: Option<String>,
}

/// The model that OpenAI has moderate what names none.
const MODERATION_MODEL: &str = "omni-moderation-latest";

/// Documents that are ranked as one search.
const SEARCHED: u64 = 100;

/// What a member may be that the model answers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// A text.
    Text,
    /// A list with at least one of these.
    List(&'static str),
    /// Either.
    Both(&'static str),
}

/// What the model answers to, by API.
fn inputs(api: Api) -> &'static [(&'static str, Takes)] {
    match api {
        Api::ChatCompletions | Api::Messages | Api::CountTokens => &[("messages", Takes::List("message"))],
        Api::Responses | Api::InputTokens => &[("input", Takes::Both("item"))],
        Api::Completions => &[("prompt", Takes::Both("prompt"))],
        Api::Embeddings | Api::Moderations => &[("input", Takes::Both("text"))],
        Api::Rerank => &[("query", Takes::Text), ("documents", Takes::List("document"))],
        Api::ImageGeneration | Api::ImageEdit => &[("prompt", Takes::Text)],
        Api::Speech => &[("input", Takes::Text)],
        Api::Transcription | Api::Translation => &[],
    }
}

/// Sound of this length that is listened to: its time, and about how many tokens it has where it is counted in them (a
/// thousand a minute at OpenAI, which makes the price of both alike) and as text.
pub(super) fn heard(audio_ms: u64) -> Usage {
    let tokens = |a_second: u64| audio_ms.saturating_mul(a_second).div_ceil(1_000);
    Usage { audio_ms, input_audio: tokens(17), output: tokens(4), ..Usage::default() }
}

/// Longest model name, in bytes.
const MAX_MODEL_BYTES: usize = 256;

/// Longest name of a service tier, in bytes. A longer one is no tier of anybody's.
const MAX_TIER_BYTES: usize = 32;

impl<'a> Envelope<'a> {
    /// Reads the envelope.
    ///
    /// # Errors
    /// A 400 that names the field at fault.
    pub fn read(body: &'a [u8], api: Api, max_depth: usize) -> Result<Self, Problem> {
        let limits = ScanLimits { max_depth, ..ScanLimits::default() };
        let members = scan_object(body, limits).map_err(scan_problem)?;
        let reader = Reader { members: &members };
        let model = match reader.get("model")? {
            None if api == Api::Moderations => MODERATION_MODEL.to_owned(),
            _ => reader.model()?,
        };
        for (name, takes) in inputs(api) {
            reader.input(name, *takes)?;
        }
        let completes = matches!(api, Api::ChatCompletions | Api::Completions);
        let stream = match api {
            // A voice is passed on as it comes, whatever its form.
            Api::Speech => true,
            Api::Embeddings | Api::Moderations | Api::Rerank | Api::Translation => false,
            api if api.is_count() => false,
            _ => reader.boolean("stream")?,
        };
        let mut max_output = match api {
            Api::Responses => reader.count("max_output_tokens")?,
            Api::Embeddings | Api::Moderations | Api::Rerank => Some(0),
            api if api.is_count() => Some(0),
            api if api.is_chat() => reader.count("max_tokens")?,
            _ => None,
        };
        if api == Api::ChatCompletions {
            // Which of the two a provider heeds is its own matter: the larger one is the bound.
            max_output = max_output.max(reader.count("max_completion_tokens")?);
        }
        let include_usage = completes && reader.include_usage(limits)?;
        let makes_images = matches!(api, Api::ImageGeneration | Api::ImageEdit);
        let choices = match api {
            Api::Completions => {
                reader.choices()?.max(reader.count("best_of")?.unwrap_or(1)).saturating_mul(reader.prompts()?)
            }
            _ if completes || makes_images => reader.choices()?,
            _ => 1,
        };
        let max_output = max_output.map(|each| each.saturating_mul(choices));
        let pieces = Usage {
            images: if makes_images { choices } else { 0 },
            characters: if api == Api::Speech { reader.characters("input")? } else { 0 },
            web_searches: if api == Api::Rerank { reader.length("documents")?.div_ceil(SEARCHED).max(1) } else { 0 },
            ..if matches!(api, Api::Transcription | Api::Translation) {
                heard(reader.count(forms::SOUND_MS)?.unwrap_or(0))
            } else {
                Usage::default()
            }
        };
        let service_tier = reader.service_tier()?;
        let (input, chat) = (InputBody::new(body), OnceCell::new());
        Ok(Self {
            api,
            body,
            input,
            members,
            chat,
            model,
            stream,
            include_usage,
            max_output,
            choices,
            service_tier,
            pieces,
            mark: None,
        })
    }

    /// About how many tokens go in that count against limits and are charged.
    pub fn input_tokens(&self, family: Family) -> u64 {
        if self.api.is_count() { 0 } else { self.input.measure().tokens(family) }
    }

    /// A field at the body's top, as it stands there; `None` as well if it is there twice.
    pub fn param(&self, name: &str) -> Option<&[u8]> {
        let member = self.members.unique(name).ok()??;
        Some(self.members.raw(member))
    }

    /// The whole request, in no dialect.
    ///
    /// # Errors
    /// A 400 naming the place at fault.
    pub fn chat(&self) -> Result<&ChatRequest, Problem> {
        let read = || match inbound(self.api.of_requests()) {
            Some(dialect) if self.api.is_count() => dialect.read_counted(self.body),
            Some(dialect) => dialect.read(self.body),
            None => Err(Problem::new(Kind::Internal, "internal_error", "This API is not translated.")),
        };
        self.chat.get_or_init(read).as_ref().map_err(Problem::clone)
    }

    /// What an API that is no chat has used of so much input if nobody tells; `None` for the others, whose output is
    /// measured.
    pub fn expected(&self, input: u64) -> Option<Usage> {
        // A second of speech is some fifteen characters, and some twenty tokens where it is counted in tokens.
        let output_audio = self.pieces.characters.saturating_mul(4).div_ceil(3);
        self.api.is_side().then_some(Usage { input, output_audio, ..self.pieces })
    }

    /// The whole body, for an API that is no chat.
    ///
    /// # Errors
    /// A 400 if it is no JSON after all.
    pub fn json(&self) -> Result<Value, Problem> {
        serde_json::from_slice(self.body)
            .map_err(|error| Problem::invalid("", format!("The body is not valid JSON: {error}.")))
    }

    /// The request as dialects take it that pass it on.
    pub fn source(&self) -> Source<'_> {
        Source { body: self.body, members: &self.members, stream: self.stream, mark: self.mark.as_deref() }
    }
}

struct Reader<'m, 'a> {
    members: &'m Members<'a>,
}

impl<'a> Reader<'_, 'a> {
    /// A member that is there and not null.
    fn get(&self, name: &str) -> Result<Option<&Member>, Problem> {
        Ok(self.members.unique(name).map_err(scan_problem)?.filter(|member| member.kind != ValueKind::Null))
    }

    fn model(&self) -> Result<String, Problem> {
        let Some(member) = self.get("model")? else {
            return Err(Problem::invalid(
                "model",
                "model: is required. Name one of the models that GET /v1/models lists.",
            ));
        };
        expect(member, "model", ValueKind::String)?;
        let model: String = serde_json::from_slice(self.members.raw(member))
            .map_err(|_| Problem::invalid("model", "model: is not a valid string."))?;
        if model.is_empty() || model.len() > MAX_MODEL_BYTES {
            return Err(Problem::invalid("model", format!("model: must have 1 to {MAX_MODEL_BYTES} bytes.")));
        }
        Ok(model)
    }

    /// What the model answers to is there.
    fn input(&self, name: &str, takes: Takes) -> Result<(), Problem> {
        let Some(member) = self.get(name)? else {
            return Err(Problem::invalid(name, format!("{name}: is required.")));
        };
        let item = match takes {
            Takes::Text => return expect(member, name, ValueKind::String),
            Takes::Both(_) if member.kind == ValueKind::String => return Ok(()),
            Takes::Both(item) | Takes::List(item) => item,
        };
        expect(member, name, ValueKind::Array)?;
        let inside = self.members.raw(member).get(1..).unwrap_or_default().trim_ascii_start();
        if inside.first() == Some(&b']') {
            return Err(Problem::invalid(name, format!("{name}: must have at least one {item}.")));
        }
        Ok(())
    }

    /// How many characters a text has.
    fn characters(&self, name: &str) -> Result<u64, Problem> {
        let text = self.get(name)?.map(|member| serde_json::from_slice::<String>(self.members.raw(member)));
        Ok(text.and_then(Result::ok).map_or(0, |text| text.chars().count() as u64))
    }

    /// How many elements a list has.
    fn length(&self, name: &str) -> Result<u64, Problem> {
        let list = self.get(name)?.map(|member| serde_json::from_slice::<Vec<IgnoredAny>>(self.members.raw(member)));
        Ok(list.and_then(Result::ok).map_or(0, |list| list.len() as u64))
    }

    /// How many prompts there are, each of which is answered: texts or lists of tokens.
    fn prompts(&self) -> Result<u64, Problem> {
        let raw = self.get("prompt")?.map(|member| self.members.raw(member)).unwrap_or_default();
        let first = raw.strip_prefix(b"[").and_then(|inside| inside.trim_ascii_start().first());
        if matches!(first, Some(b'"' | b'[')) { self.length("prompt") } else { Ok(1) }
    }

    fn boolean(&self, name: &str) -> Result<bool, Problem> {
        let Some(member) = self.get(name)? else { return Ok(false) };
        expect(member, name, ValueKind::Bool)?;
        Ok(self.members.raw(member) == b"true")
    }

    fn count(&self, name: &str) -> Result<Option<u64>, Problem> {
        let Some(member) = self.get(name)? else { return Ok(None) };
        expect(member, name, ValueKind::Number)?;
        match serde_json::from_slice(self.members.raw(member)) {
            Ok(count) => Ok(Some(count)),
            Err(_) => Err(Problem::invalid(name, format!("{name}: must be a whole number, 0 or more."))),
        }
    }

    /// What `n` multiplies. Whether it is a good number the provider judges; that there is but one is judged here, as
    /// more would be reserved for one and generated for the other.
    fn choices(&self) -> Result<u64, Problem> {
        let asked = self.get("n")?.and_then(|member| serde_json::from_slice::<u64>(self.members.raw(member)).ok());
        Ok(asked.unwrap_or(1).max(1))
    }

    fn service_tier(&self) -> Result<Option<String>, Problem> {
        let tier = self.get("service_tier")?;
        let tier: Option<String> = tier.and_then(|member| serde_json::from_slice(self.members.raw(member)).ok());
        Ok(tier.filter(|tier| tier.len() <= MAX_TIER_BYTES))
    }

    fn include_usage(&self, limits: ScanLimits) -> Result<bool, Problem> {
        let Some(member) = self.get("stream_options")? else { return Ok(false) };
        expect(member, "stream_options", ValueKind::Object)?;
        let inner = scan_object(self.members.raw(member), limits).map_err(scan_problem)?;
        Reader { members: &inner }.boolean("include_usage").map_err(|problem| {
            Problem::invalid("stream_options.include_usage", format!("stream_options.{}", problem.message))
        })
    }
}

fn expect(member: &Member, name: &str, kind: ValueKind) -> Result<(), Problem> {
    if member.kind == kind {
        return Ok(());
    }
    Err(Problem::invalid(name, format!("{name}: must be {}, not {}.", kind.name(), member.kind.name())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<(String, bool, bool), Problem> {
        Envelope::read(body.as_bytes(), Api::ChatCompletions, 64).map(|e| (e.model, e.stream, e.include_usage))
    }

    #[test]
    fn the_envelope_is_read() {
        let body =
            r#"{"messages":[{}],"model":"gp\u0074","stream":true,"stream_options":{"include_usage":true},"x":null}"#;
        assert_eq!(read(body), Ok(("gpt".into(), true, true)));
        assert_eq!(read(r#"{"model":"m","messages":[1],"stream":null}"#), Ok(("m".into(), false, false)));
    }

    #[test]
    fn what_a_request_may_use_is_read() {
        let read = |api, body: &str| {
            let envelope = Envelope::read(body.as_bytes(), api, 64).unwrap();
            (envelope.max_output, envelope.choices, envelope.service_tier)
        };
        let chat = |rest: &str| read(Api::ChatCompletions, &format!(r#"{{"model":"m","messages":[1]{rest}}}"#));
        assert_eq!(chat(""), (None, 1, None));
        assert_eq!(chat(r#","max_tokens":5,"n":null,"service_tier":null"#), (Some(5), 1, None));
        assert_eq!(chat(r#","max_tokens":5,"max_completion_tokens":7,"n":3"#), (Some(21), 3, None));
        assert_eq!(chat(r#","n":18446744073709551615,"max_tokens":2"#), (Some(u64::MAX), u64::MAX, None));
        assert_eq!(chat(r#","n":0,"service_tier":"fl\u0065x""#), (None, 1, Some("flex".into())));
        assert_eq!(chat(r#","n":"many","service_tier":7"#), (None, 1, None));
        assert_eq!(chat(&format!(r#","service_tier":"{}""#, "x".repeat(33))), (None, 1, None));
        let messages = r#"{"model":"m","messages":[1],"max_tokens":9,"max_completion_tokens":11,"n":4}"#;
        assert_eq!(read(Api::Messages, messages), (Some(9), 1, None));
    }

    #[test]
    fn what_is_no_chat_has_an_envelope_of_its_own() {
        fn read(api: Api, body: &str) -> Result<Envelope<'_>, Problem> {
            Envelope::read(body.as_bytes(), api, 64)
        }
        let at = |api, body: &str| read(api, body).map(|_| ()).unwrap_err().param.unwrap_or_default();
        assert_eq!(read(Api::Embeddings, r#"{"model":"m","input":[1,2]}"#).unwrap().max_output, Some(0));
        assert_eq!(at(Api::Embeddings, r#"{"model":"m","input":[]}"#), "input");
        assert_eq!(at(Api::Embeddings, r#"{"input":"x"}"#), "model");
        assert_eq!(at(Api::Rerank, r#"{"model":"m","query":"q","documents":"d"}"#), "documents");
        assert_eq!(at(Api::Speech, r#"{"model":"m","input":["x"]}"#), "input");
        assert_eq!(at(Api::ImageGeneration, r#"{"model":"m"}"#), "prompt");
        assert_eq!(read(Api::Moderations, r#"{"input":"x"}"#).unwrap().model, "omni-moderation-latest");
        assert_eq!(at(Api::Moderations, r#"{"model":7,"input":"x"}"#), "model");
        let documents = (0..101).map(|n| format!("\"{n}\"")).collect::<Vec<_>>().join(",");
        let ranked = format!(r#"{{"model":"m","query":"q","documents":[{documents}]}}"#);
        let ranked = read(Api::Rerank, &ranked).unwrap();
        assert_eq!((ranked.pieces.web_searches, ranked.stream), (2, false));
        let images = read(Api::ImageGeneration, r#"{"model":"m","prompt":"p","n":3,"stream":true}"#).unwrap();
        assert_eq!((images.pieces.images, images.choices, images.stream), (3, 3, true));
        let speech = read(Api::Speech, r#"{"model":"m","input":"d\u00fc 你","voice":"alloy"}"#).unwrap();
        assert_eq!((speech.stream, speech.pieces.characters), (true, 4));
        let expected = speech.expected(7).unwrap();
        assert_eq!((expected.input, expected.characters, expected.output_audio), (7, 4, 6));
        assert!(!read(Api::Embeddings, r#"{"model":"m","input":"x","stream":"y"}"#).unwrap().stream);
        let heard = read(Api::Transcription, r#"{"model":"m","sound_ms":60000}"#).unwrap();
        let expected = Usage { audio_ms: 60_000, input_audio: 1_020, output: 240, ..Usage::default() };
        assert_eq!((heard.pieces, heard.expected(7)), (expected, Some(Usage { input: 7, ..expected })));
    }

    #[test]
    fn every_prompt_is_answered_as_often_as_is_asked() {
        let read = |rest: &str| {
            let body = format!(r#"{{"model":"m","prompt":{rest}}}"#);
            Envelope::read(body.as_bytes(), Api::Completions, 64).map(|it| (it.choices, it.max_output)).ok()
        };
        assert_eq!(read(r#""a""#), Some((1, None)));
        assert_eq!(read(r#"["a","b"],"n":2,"max_tokens":5"#), Some((4, Some(20))));
        assert_eq!(read(r#"[1,2,3],"n":2,"best_of":3,"max_tokens":5"#), Some((3, Some(15))));
        assert_eq!(read("[ [1,2],[3]]"), Some((2, None)));
        assert_eq!((read("[]"), read("5"), read("null")), (None, None, None));
    }

    #[test]
    fn a_response_is_asked_for_by_names_of_its_own() {
        fn read(body: &str) -> Result<Envelope<'_>, Problem> {
            Envelope::read(body.as_bytes(), Api::Responses, 64)
        }
        let envelope = read(r#"{"model":"m","input":"x","max_output_tokens":9,"max_tokens":11,"n":3}"#).unwrap();
        assert_eq!((envelope.max_output, envelope.choices), (Some(9), 1));
        assert!(read(r#"{"model":"m","input":[1],"stream":true}"#).unwrap().stream);
        for body in [r#"{"model":"m"}"#, r#"{"model":"m","input":[]}"#, r#"{"model":"m","input":5}"#] {
            assert_eq!(read(body).unwrap_err().param.as_deref(), Some("input"));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let param = |body: &str| read(body).unwrap_err().param.unwrap_or_default();
        assert_eq!(param(r#"{"messages":[1]}"#), "model");
        assert_eq!(param(r#"{"model":5,"messages":[1]}"#), "model");
        assert_eq!(param(r#"{"model":"","messages":[1]}"#), "model");
        assert_eq!(param(r#"{"model":"a","model":"b","messages":[1]}"#), "model");
        assert_eq!(param(r#"{"model":"m"}"#), "messages");
        assert_eq!(param(r#"{"model":"m","messages":[ ]}"#), "messages");
        assert_eq!(param(r#"{"model":"m","messages":"hi"}"#), "messages");
        assert_eq!(param(r#"{"model":"m","messages":[1],"stream":"yes"}"#), "stream");
        assert_eq!(param(r#"{"model":"m","messages":[1],"max_tokens":-1}"#), "max_tokens");
        assert_eq!(param(r#"{"model":"m","messages":[1],"max_tokens":1e99}"#), "max_tokens");
        assert_eq!(param(r#"{"model":"m","messages":[1],"n":1,"n":9}"#), "n");
        assert_eq!(param(r#"{"model":"m","messages":[1],"service_tier":"a","service_tier":"b"}"#), "service_tier");
        assert_eq!(param(r#"{"model":"m","messages":[1],"stream_options":[]}"#), "stream_options");
        assert_eq!(
            param(r#"{"model":"m","messages":[1],"stream_options":{"include_usage":1}}"#),
            "stream_options.include_usage"
        );
        assert_eq!(read("{").unwrap_err().code, "invalid_json");
    }
}
