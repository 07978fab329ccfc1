//! Stage 6, the deciding part: what becomes of a provider's reply. The shell's part, `relay`, moves the bytes.

use serde_json::Value;

use super::meter::{Meter, Metered, TellCost};
use super::plan::Lane;
use super::{count, faithful};
use crate::error::Problem;
use crate::protocol::chat::{ChatEvent, ReplyDecoder, ReplyFault};
use crate::protocol::inbound::{Echo, Inbound, ReplyIdentity, StreamWriter, error_event, inbound};
use crate::protocol::usage::{BillingFacts, Told, Usage};
use crate::providers::openai::stored;
use crate::providers::outbound::{Outbound, decode_body, decoder};
use crate::providers::side::{Side, SideAsked};
use crate::providers::{Api, StandIns, Target, usage_of};

/// What a successful reply's content type says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Events, one after the other.
    Stream,
    /// One JSON value.
    Json,
    /// Text: what is asked for where a recording is to be written down, and nowhere else.
    Text,
    /// None of them: an error page of something in between.
    Other,
}

/// Reads a content type. A provider that names none is believed to do what it was asked.
pub fn form(content_type: Option<&str>, stream: bool) -> Form {
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "text/event-stream"
        | "application/vnd.amazon.eventstream"
        | "application/x-ndjson"
        | "application/ndjson"
        | "application/jsonl" => Form::Stream,
        "application/json" => Form::Json,
        "" if stream => Form::Stream,
        "" => Form::Json,
        other if other.ends_with("+json") => Form::Json,
        "text/plain" | "text/vtt" | "text/srt" | "application/x-subrip" => Form::Text,
        _ => Form::Other,
    }
}

/// Whether a content type is one of those that speech comes in.
pub fn is_sound(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.starts_with("audio/") || essence == "application/octet-stream"
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

    /// Tells the caller that the stream has broken off; appends to `out`.
    fn fail(&mut self, problem: &Problem, request_id: &str, out: &mut Vec<u8>);
}

/// The processor for a stream that does not pass natively.
pub fn processor(lane: Lane, dialect: &dyn Outbound, target: Target<'_>, wanted: Wanted) -> Box<dyn StreamProcessor> {
    let Wanted { api, choices, identity, mut echo, cost, stand_ins, .. } = wanted;
    match (lane, inbound(api)) {
        (Lane::Translated, Some(inbound)) => {
            echo.include_usage |= cost.is_some();
            Box::new(Translator {
                decoder: decoder(dialect, target, &stand_ins),
                writer: inbound.stream(identity, echo),
                cost,
                events: Vec::new(),
                usage: None,
                facts: BillingFacts::default(),
                pieces: 0,
                fault: None,
            })
        }
        _ => {
            let meter = match cost {
                Some(cost) => Meter::telling_cost(api, choices, cost),
                None => Meter::new(api, choices),
            };
            Box::new(Relay { api, meter })
        }
    }
}

/// Same bytes, less the usage chunk.
struct Relay {
    api: Api,
    meter: Meter,
}

impl StreamProcessor for Relay {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), ReplyFault> {
        let before = out.len();
        self.meter.relay(bytes, out)?;
        match self.meter.began_with_fault() {
            // The caller has not seen anything yet, so it can still get an error status.
            Some(fault) => {
                out.truncate(before);
                Err(fault)
            }
            None => Ok(()),
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Metered {
        self.meter.finish(out)
    }

    fn broken_off(&self, fault: ReplyFault) -> Metered {
        self.meter.broken_off(fault)
    }

    fn fail(&mut self, problem: &Problem, request_id: &str, out: &mut Vec<u8>) {
        out.extend(error_event(self.api, problem, request_id));
    }
}

/// Decoded and written anew.
struct Translator {
    decoder: Box<dyn ReplyDecoder>,
    writer: Box<dyn StreamWriter>,
    cost: Option<TellCost>,
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
                ChatEvent::Text { .. } | ChatEvent::Reasoning { .. } | ChatEvent::CallArguments { .. } => {
                    self.pieces = self.pieces.saturating_add(1);
                }
                _ => {}
            }
            self.writer.write(&event, out);
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
            let told = self.told();
            let tag = self.cost.as_ref().zip(told.as_ref()).map(|(cost, told)| cost.tag(told));
            self.writer.end(told.as_ref(), tag, out);
        }
        Metered { told: self.told(), pieces: self.pieces, result, fault_was_relayed: false, lacks_blank_line: false }
    }

    fn broken_off(&self, fault: ReplyFault) -> Metered {
        Metered {
            told: self.told(),
            pieces: self.pieces,
            result: Err(fault),
            fault_was_relayed: false,
            lacks_blank_line: false,
        }
    }

    fn fail(&mut self, problem: &Problem, request_id: &str, out: &mut Vec<u8>) {
        self.writer.fail(problem, request_id, out);
    }
}

/// What the caller asked for and must therefore get, whatever form the provider chose.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The API that the caller speaks.
    pub api: Api,
    /// Whether it wants a stream.
    pub stream: bool,
    /// How many choices or images it wants.
    pub choices: u64,
    /// What of its request a translated reply depends on.
    pub echo: Echo,
    /// What stands in the request for something else.
    pub stand_ins: StandIns,
    /// Whether it wants to be told the cost in the reply's usage, and by which price that is reckoned.
    pub cost: Option<TellCost>,
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
    dialect: &dyn Outbound,
    target: Target<'_>,
    wanted: Wanted,
) -> Result<WholeReply, ReplyFault> {
    if wanted.api.is_count() {
        return count::read(body, wanted.api, lane, dialect);
    }
    // Models that cannot stream a transcript give it whole, whatever was asked for.
    let streams = wanted.stream && !matches!(wanted.api, Api::Transcription | Api::Translation);
    if form == Form::Json && lane != Lane::Translated && !streams {
        let told = faithful::usage(&body, wanted.api)?;
        let body = if wanted.api == Api::Responses { stored::unmarked(body) } else { body };
        let body = with_cost(body, wanted.cost.as_ref(), told.as_ref());
        return Ok(WholeReply { body, content_type: "application/json", told });
    }
    if form == Form::Text && lane != Lane::Translated && matches!(wanted.api, Api::Transcription | Api::Translation) {
        let told = Told::from_transcript(&String::from_utf8_lossy(&body));
        return Ok(WholeReply { body, content_type: "text/plain; charset=utf-8", told });
    }
    if lane == Lane::Translated
        && let Some(side) = dialect.side(wanted.api, target)
    {
        return side_reply(&body, form, side, &wanted);
    }
    // What is read below is the form in which the provider is asked for what is translated, which this one is not.
    let readable = inbound(wanted.api).filter(|_| lane == Lane::Translated || wanted.api != Api::Completions);
    let Some(inbound) = readable else {
        return Err(ReplyFault::Malformed("it is not in the form that was asked for".to_owned()));
    };
    let events = match form {
        Form::Json => decode_body(dialect, target, &wanted.stand_ins, &body)?,
        Form::Stream => {
            let mut events = Vec::new();
            let mut decoder = decoder(dialect, target, &wanted.stand_ins);
            decoder.push(&body, &mut events)?;
            decoder.finish(&mut events)?;
            events
        }
        Form::Text | Form::Other => return Err(ReplyFault::Malformed("it is not JSON".to_owned())),
    };
    let told = usage_of(&events);
    Ok(written(inbound, events, told, wanted))
}

/// A translated reply that is no chat.
fn side_reply(body: &[u8], form: Form, side: &dyn Side, wanted: &Wanted) -> Result<WholeReply, ReplyFault> {
    if form != Form::Json {
        return Err(ReplyFault::Malformed("it is not JSON".to_owned()));
    }
    let body: Value = serde_json::from_slice(body).map_err(|error| ReplyFault::Malformed(error.to_string()))?;
    let asked = SideAsked { members: &wanted.echo.members, model: &wanted.identity.model, id: &wanted.identity.id };
    let (reply, told) = side.reply(&body, &asked)?;
    let body = with_cost(reply.to_string().into_bytes(), wanted.cost.as_ref(), told.as_ref());
    Ok(WholeReply { body, content_type: "application/json", told })
}

/// A reply as the caller wants it.
fn written(inbound: &dyn Inbound, events: Vec<ChatEvent>, told: Option<Told>, wanted: Wanted) -> WholeReply {
    let Wanted { stream, identity, mut echo, cost, .. } = wanted;
    if stream {
        let tag = cost.as_ref().zip(told.as_ref()).map(|(cost, told)| cost.tag(told));
        echo.include_usage |= tag.is_some();
        let mut writer = inbound.stream(identity, echo);
        let mut out = Vec::new();
        events.iter().for_each(|event| writer.write(event, &mut out));
        writer.end(told.as_ref(), tag, &mut out);
        return WholeReply { body: out, content_type: "text/event-stream", told };
    }
    let mut writer = inbound.whole(identity, echo);
    events.into_iter().for_each(|event| writer.add(event));
    let body = writer.finish(told.as_ref()).to_string().into_bytes();
    WholeReply { body: with_cost(body, cost.as_ref(), told.as_ref()), content_type: "application/json", told }
}

/// Writes the cost into the usage of a whole reply, for a caller that wants it there.
fn with_cost(body: Vec<u8>, cost: Option<&TellCost>, told: Option<&Told>) -> Vec<u8> {
    let tagged = cost.zip(told).and_then(|(cost, told)| cost.tag(told).write_into(&body, &["usage"]));
    tagged.unwrap_or(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(stream: bool, cost: Option<TellCost>) -> Wanted {
        let identity = ReplyIdentity { id: "i".into(), created: 1, model: "m".into() };
        let echo = Echo { include_usage: true, ..Echo::default() };
        Wanted { api: Api::ChatCompletions, stream, choices: 1, echo, stand_ins: StandIns::default(), cost, identity }
    }

    #[test]
    fn speech_is_sound_and_nothing_that_a_browser_would_run() {
        for sound in ["audio/mpeg", "Audio/PCM; rate=24000", "application/octet-stream"] {
            assert!(is_sound(sound), "{sound}");
        }
        for other in ["text/html", "application/json", "text/event-stream", "", "image/svg+xml", "audio"] {
            assert!(!is_sound(other), "{other}");
        }
    }

    #[test]
    fn content_types_are_told_apart() {
        assert_eq!(form(Some("text/event-stream; charset=utf-8"), true), Form::Stream);
        assert_eq!(form(Some("application/vnd.amazon.eventstream"), true), Form::Stream);
        assert_eq!(form(Some("Application/JSON"), true), Form::Json);
        assert_eq!(form(Some("application/problem+json"), false), Form::Json);
        assert_eq!(form(Some("text/html"), false), Form::Other);
        assert_eq!(form(Some("text/plain; charset=utf-8"), false), Form::Text);
        assert_eq!((form(None, true), form(None, false)), (Form::Stream, Form::Json));
    }

    #[test]
    fn the_cost_stands_in_the_usage_of_every_reply_that_is_to_tell_it() {
        let provider = serde_json::json!({"dialect": "openai", "base_url": "https://o.example/v1"});
        let provider: crate::config::Provider = serde_json::from_value(provider).unwrap();
        let structured_output = crate::config::StructuredOutput::Native;
        let target = Target {
            provider: &provider,
            upstream_model: "m",
            max_output_tokens: 1,
            structured_output,
            strict_params: false,
        };
        let adapter = crate::providers::outbound(provider.dialect());
        let price = crate::billing::Parts { input: Some(crate::billing::Picodollars(1_500)), ..Default::default() };
        let body = r#"{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#;
        for (cost, expected) in [
            (Some(TellCost { pricing: Some(crate::billing::Pricing::flat(price)), lost: 0 }), "\"cost\":0.000000005"),
            (Some(TellCost::default()), "\"cost\":null"),
            (None, "tokens\":3"),
        ] {
            for (lane, stream) in [(Lane::Native, false), (Lane::Translated, false), (Lane::Translated, true)] {
                let wanted = wanted(stream, cost.clone());
                let reply = whole_reply(body.into(), Form::Json, lane, adapter, target, wanted).unwrap();
                let text = String::from_utf8(reply.body).unwrap();
                assert!(text.contains(expected), "{text}");
                assert_eq!(text.contains("cost"), cost.is_some(), "{text}");
            }
            let stream = format!("data: {{\"id\":\"c\",{}\n\ndata: [DONE]\n\n", body.trim_start_matches('{'));
            let mut out = Vec::new();
            let mut processor = processor(Lane::Translated, adapter, target, wanted(true, cost.clone()));
            processor.push(stream.as_bytes(), &mut out).unwrap();
            processor.finish(&mut out);
            let text = String::from_utf8(out).unwrap();
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn a_stream_that_reported_an_error_never_becomes_complete() {
        let provider =
            serde_json::from_value(serde_json::json!({"dialect": "openai", "base_url": "https://o.example/v1"}));
        let provider: crate::config::Provider = provider.unwrap();
        let structured_output = crate::config::StructuredOutput::Native;
        let target = Target {
            provider: &provider,
            upstream_model: "m",
            max_output_tokens: 1,
            structured_output,
            strict_params: false,
        };
        let wanted = wanted(true, None);
        let mut processor = processor(Lane::Translated, crate::providers::outbound(provider.dialect()), target, wanted);
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
