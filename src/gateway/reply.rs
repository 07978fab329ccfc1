//! Stage 5, the deciding part: what becomes of a provider's reply. The shell's part, `relay`, moves the bytes.

use serde_json::{Value, json};

use super::meter::{Meter, Metered};
use super::plan::Lane;
use crate::protocol::chat::{ChatEvent, ReplyDecoder, ReplyFault};
use crate::protocol::openai_chat::{self, BodyEncoder, ReplyIdentity, StreamEncoder};
use crate::protocol::usage::{BillingFacts, Told, Usage};
use crate::providers::{Adapter, Api, Target, usage_of};

/// What a successful reply's content type says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Events, one after the other.
    Stream,
    /// One JSON value.
    Json,
    /// Neither: an error page of something in between.
    Other,
}

/// Reads a content type. A provider that names none is believed to do what it was asked.
pub fn form(content_type: Option<&str>, stream: bool) -> Form {
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "text/event-stream" | "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Form::Stream,
        "application/json" => Form::Json,
        "" if stream => Form::Stream,
        "" => Form::Json,
        other if other.ends_with("+json") => Form::Json,
        _ => Form::Other,
    }
}

/// Turns a stream's bytes into the bytes that the caller gets.
pub trait StreamProcessor {
    /// Processes the next bytes; appends to `out`.
    ///
    /// # Errors
    /// [`ReplyFault`]: the stream is over and must end with an error.
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), ReplyFault>;

    /// The upstream's stream has ended; appends what is still due.
    fn finish(&mut self, out: &mut Vec<u8>) -> Metered;

    /// What is known of a stream that does not get to its end.
    fn broken_off(&self, fault: ReplyFault) -> Metered;
}

/// The processor for a stream that does not pass natively.
pub fn processor(
    lane: Lane,
    adapter: &dyn Adapter,
    target: Target<'_>,
    identity: ReplyIdentity,
    include_usage: bool,
) -> Box<dyn StreamProcessor> {
    match lane {
        Lane::Relayed | Lane::Native => Box::new(Relay(Meter::new(Api::ChatCompletions))),
        Lane::Translated => Box::new(Translator {
            decoder: adapter.stream_decoder(target),
            encoder: StreamEncoder::new(identity, include_usage),
            events: Vec::new(),
            usage: None,
            facts: BillingFacts::default(),
            pieces: 0,
            fault: None,
        }),
    }
}

/// Same bytes, less the usage chunk.
struct Relay(Meter);

impl StreamProcessor for Relay {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), ReplyFault> {
        let before = out.len();
        self.0.relay(bytes, out)?;
        match self.0.began_with_fault() {
            // The caller has not seen anything yet, so it can still get an error status.
            Some(fault) => {
                out.truncate(before);
                Err(fault)
            }
            None => Ok(()),
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Metered {
        self.0.finish(out)
    }

    fn broken_off(&self, fault: ReplyFault) -> Metered {
        self.0.broken_off(fault)
    }
}

/// Decoded and written anew.
struct Translator {
    decoder: Box<dyn ReplyDecoder>,
    encoder: StreamEncoder,
    /// Kept for its memory.
    events: Vec<ChatEvent>,
    usage: Option<Usage>,
    facts: BillingFacts,
    /// Events that carried a piece of the answer.
    pieces: u64,
    /// Why the stream is over before its end. Nothing that follows makes it complete again.
    fault: Option<ReplyFault>,
}

impl Translator {
    fn told(&self) -> Option<Told> {
        self.usage.map(|usage| Told { usage, facts: self.facts })
    }

    fn write_events(&mut self, out: &mut Vec<u8>) {
        for event in self.events.drain(..) {
            match &event {
                ChatEvent::Usage(usage) => self.usage = Some(*usage),
                ChatEvent::Billed(facts) => self.facts = *facts,
                ChatEvent::Text { .. } | ChatEvent::Reasoning { .. } | ChatEvent::ToolCallArguments { .. } => {
                    self.pieces = self.pieces.saturating_add(1);
                }
                _ => {}
            }
            self.encoder.write(&event, out);
        }
    }
}

impl StreamProcessor for Translator {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), ReplyFault> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let result = self.decoder.push(bytes, &mut self.events);
        self.write_events(out);
        self.fault = result.clone().err();
        result
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Metered {
        let result = match self.fault.take() {
            Some(fault) => Err(fault),
            None => self.decoder.finish(&mut self.events),
        };
        self.write_events(out);
        if result.is_ok() {
            self.encoder.end(out);
        }
        Metered { told: self.told(), pieces: self.pieces, result, fault_was_relayed: false }
    }

    fn broken_off(&self, fault: ReplyFault) -> Metered {
        Metered { told: self.told(), pieces: self.pieces, result: Err(fault), fault_was_relayed: false }
    }
}

/// What the caller asked for and must therefore get, whatever form the provider chose.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The API that the caller speaks.
    pub api: Api,
    /// Whether it wants a stream.
    pub stream: bool,
    /// Whether it wants the usage chunk.
    pub include_usage: bool,
    /// What a translated reply is called.
    pub identity: ReplyIdentity,
}

/// A whole reply, ready for the caller.
#[derive(Debug, PartialEq, Eq)]
pub struct WholeReply {
    /// The body.
    pub body: Vec<u8>,
    /// Its content type.
    pub content_type: &'static str,
    /// What it used, if the provider told.
    pub told: Option<Told>,
}

/// Works a whole successful reply up for the caller. The provider's bytes are passed on as they are where they already
/// are what was asked for.
///
/// # Errors
/// [`ReplyFault`] if it is no successful reply after all.
pub fn whole_reply(
    body: Vec<u8>,
    form: Form,
    lane: Lane,
    adapter: &dyn Adapter,
    target: Target<'_>,
    wanted: Wanted,
) -> Result<WholeReply, ReplyFault> {
    if form == Form::Json && lane != Lane::Translated && !wanted.stream {
        let told = faithful_usage(&body, wanted.api)?;
        return Ok(WholeReply { body, content_type: "application/json", told });
    }
    if wanted.api == Api::Messages {
        return Err(ReplyFault::Malformed("it is not in the form that was asked for".to_owned()));
    }
    let events = match form {
        Form::Json => adapter.decode_body(&body, target)?,
        Form::Stream => {
            let mut events = Vec::new();
            let mut decoder = adapter.stream_decoder(target);
            decoder.push(&body, &mut events)?;
            decoder.finish(&mut events)?;
            events
        }
        Form::Other => return Err(ReplyFault::Malformed("it is not JSON".to_owned())),
    };
    let told = usage_of(&events);
    if wanted.stream {
        let mut encoder = StreamEncoder::new(wanted.identity, wanted.include_usage);
        let mut out = Vec::new();
        events.iter().for_each(|event| encoder.write(event, &mut out));
        encoder.end(&mut out);
        return Ok(WholeReply { body: out, content_type: "text/event-stream", told });
    }
    let mut encoder = BodyEncoder::new(wanted.identity);
    events.into_iter().for_each(|event| encoder.add(event));
    Ok(WholeReply { body: encoder.finish().to_string().into_bytes(), content_type: "application/json", told })
}

/// Reads the usage of a body that is passed on unchanged; everything else in it is skipped over.
fn faithful_usage(body: &[u8], api: Api) -> Result<Option<Told>, ReplyFault> {
    #[derive(serde::Deserialize)]
    struct Reply {
        #[serde(default)]
        usage: Option<Value>,
        #[serde(default)]
        service_tier: Option<Value>,
        #[serde(default)]
        error: Option<Value>,
    }
    let reply: Reply = serde_json::from_slice(body).map_err(|error| ReplyFault::Malformed(error.to_string()))?;
    if let Some(error) = reply.error.filter(|error| !error.is_null()) {
        return Err(openai_chat::reported(&error));
    }
    let Some(usage) = reply.usage else { return Ok(None) };
    Ok(match api {
        Api::ChatCompletions => Told::from_openai(&json!({"usage": usage, "service_tier": reply.service_tier})),
        Api::Messages => {
            let mut counted = Told::default();
            counted.merge_anthropic(&usage);
            Some(counted)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_are_told_apart() {
        assert_eq!(form(Some("text/event-stream; charset=utf-8"), true), Form::Stream);
        assert_eq!(form(Some("Application/JSON"), true), Form::Json);
        assert_eq!(form(Some("application/problem+json"), false), Form::Json);
        assert_eq!(form(Some("text/html"), false), Form::Other);
        assert_eq!((form(None, true), form(None, false)), (Form::Stream, Form::Json));
    }

    #[test]
    fn usage_of_an_unchanged_body_is_read_and_an_error_in_it_noticed() {
        let body = br#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
        assert_eq!(faithful_usage(body, Api::ChatCompletions).unwrap().map(|told| told.usage.input_total()), Some(1));
        let body = br#"{"usage":{"input_tokens":4,"output_tokens":2}}"#;
        assert_eq!(faithful_usage(body, Api::Messages).unwrap().map(|told| told.usage.input_total()), Some(4));
        assert!(faithful_usage(br#"{"error":{"message":"x"}}"#, Api::ChatCompletions).is_err());
        assert!(faithful_usage(br#"{"choices":["#, Api::ChatCompletions).is_err());
    }

    #[test]
    fn a_stream_that_reported_an_error_never_becomes_complete() {
        let provider =
            serde_json::from_value(serde_json::json!({"dialect": "openai", "base_url": "https://o.example/v1"}));
        let provider: crate::config::Provider = provider.unwrap();
        let structured_output = crate::config::StructuredOutput::Native;
        let target = Target { provider: &provider, upstream_model: "m", max_output_tokens: 1, structured_output };
        let identity = ReplyIdentity { id: "i".into(), created: 1, model: "m".into() };
        let mut processor =
            processor(Lane::Translated, crate::providers::adapter(provider.dialect), target, identity, true);
        let mut out = Vec::new();
        let finished = b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\n";
        assert_eq!(processor.push(finished, &mut out), Ok(()));
        let fault = processor.push(b"data: {\"error\":{\"message\":\"no\"}}\n\n", &mut out).unwrap_err();
        assert_eq!(processor.push(b"data: [DONE]\n\n", &mut out), Err(fault.clone()));
        assert_eq!(processor.finish(&mut out).result, Err(fault));
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("\"a\"") && !out.contains("[DONE]") && !out.contains("\"stop\""));
    }
}
