//! Reads a stream that is passed on in its own dialect: what it used, whether it is complete, and which of its chunks
//! the caller must not see. Bytes are searched, not parsed: only an event that carries usage, a finish reason or an
//! error is.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::billing::{Nanodollars, Pricing};
use crate::protocol::chat::{FinishReason, ReplyFault};
use crate::protocol::cost_tag::CostTag;
use crate::protocol::frames::MAX_EVENT_BYTES;
use crate::protocol::sse::{self, Frame, SseDecoder};
use crate::protocol::usage::{BillingFacts, Told, Usage};
use crate::providers::Api;

/// Reads one stream.
#[derive(Debug)]
pub struct Meter {
    sse: SseDecoder,
    state: State,
    /// What the caller is to be told of the cost.
    cost: Option<TellCost>,
}

/// That the caller is to be told what its request cost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TellCost {
    /// The price of the model that answers.
    pub pricing: Option<Pricing>,
    /// What attempts have cost that failed before, in nano-dollars.
    pub lost: u64,
}

impl TellCost {
    /// The cost of what was used.
    pub fn tag(&self, told: &Told) -> CostTag {
        let cost = |pricing: &Pricing| pricing.cost(&told.usage, &told.facts).0.saturating_add(self.lost);
        CostTag(self.pricing.as_ref().map(cost).map(Nanodollars))
    }
}

/// What an event tells of the usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Nothing.
    Nothing,
    /// Something, beside other things.
    Usage,
    /// Something, and nothing else: the caller gets such a chunk only if it asked for it.
    UsageAlone,
}

#[derive(Debug)]
struct State {
    api: Api,
    usage: Option<Usage>,
    facts: BillingFacts,
    /// How many choices or images were asked for.
    choices: u64,
    /// The choices whose finish reason was seen (OpenAI).
    finished: BTreeSet<u64>,
    /// How many images, sounds or transcripts are complete.
    completed: u64,
    /// The stream's own end mark was seen: `[DONE]`, `message_stop`.
    done: bool,
    reported: Option<ReplyFault>,
    /// Events with data.
    pieces: u64,
}

/// What a stream turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub struct Metered {
    /// What it used, if it told.
    pub told: Option<Told>,
    /// In how many pieces the answer came, which is near the number of output tokens where the provider tells none.
    pub pieces: u64,
    /// Whether it was complete.
    pub result: Result<(), ReplyFault>,
    /// Whether the caller has already been told of the fault, by the provider's own error event.
    pub fault_was_relayed: bool,
    /// Whether the last event came without the blank line that ends it.
    pub lacks_blank_line: bool,
}

impl Meter {
    /// A meter for a stream in this API's format, of so many choices or images.
    pub fn new(api: Api, choices: u64) -> Self {
        let state = State {
            api,
            usage: None,
            facts: BillingFacts::default(),
            choices,
            finished: BTreeSet::new(),
            completed: 0,
            done: false,
            reported: None,
            pieces: 0,
        };
        Self { sse: SseDecoder::new(MAX_EVENT_BYTES), state, cost: None }
    }

    /// A meter whose [`Self::relay`] writes into each event that tells the usage what has been used costs, and leaves no
    /// event out.
    pub fn telling_cost(api: Api, choices: u64, cost: TellCost) -> Self {
        Self { cost: Some(cost), ..Self::new(api, choices) }
    }

    /// Reads bytes that the caller gets by another way.
    ///
    /// # Errors
    /// [`ReplyFault::Malformed`] if an event is too large to be held.
    pub fn read(&mut self, bytes: &[u8]) -> Result<(), ReplyFault> {
        self.sse.push(bytes).map_err(|error| ReplyFault::Malformed(error.to_string()))?;
        while let Some(frame) = self.sse.next_frame() {
            self.state.observe(&frame);
        }
        Ok(())
    }

    /// Reads bytes and copies to `out` what the caller may see: all but usage chunks, unless it is told the cost.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn relay(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), ReplyFault> {
        self.sse.push(bytes).map_err(|error| ReplyFault::Malformed(error.to_string()))?;
        while let Some(frame) = self.sse.next_frame() {
            let seen = self.state.observe(&frame);
            self.state.pass_on(seen, &frame, self.cost.as_ref(), out);
        }
        Ok(())
    }

    /// The fault that the provider reported with the first event of all.
    pub fn began_with_fault(&self) -> Option<ReplyFault> {
        self.state.reported.clone().filter(|_| self.state.pieces == 1)
    }

    /// What is known of a stream that does not get to its end.
    pub fn broken_off(&self, fault: ReplyFault) -> Metered {
        Metered {
            told: self.state.told(),
            pieces: self.state.pieces,
            result: Err(fault),
            fault_was_relayed: false,
            lacks_blank_line: false,
        }
    }

    /// The stream has ended. `out`, for a relay, gets what was held back and may still be passed on.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Metered {
        let mut lacks_blank_line = false;
        if let Some((raw, Some(data))) = self.sse.unfinished() {
            // Some providers leave out the last blank line. A half-written event is not passed on.
            let whole = data == b"[DONE]" || serde_json::from_slice::<Value>(&data).is_ok();
            let frame = Frame { raw: &raw, name: b"", data: Some(data.into()) };
            lacks_blank_line = whole;
            if whole {
                let raw = [raw.as_slice(), b"\n\n"].concat();
                let seen = self.state.observe(&frame);
                self.state.pass_on(seen, &Frame { raw: &raw, ..frame }, self.cost.as_ref(), out);
            }
        }
        let state = &self.state;
        let result = match &state.reported {
            Some(fault) => Err(fault.clone()),
            None if state.is_complete() => Ok(()),
            None => Err(ReplyFault::Truncated),
        };
        let fault_was_relayed = state.reported.is_some();
        Metered { told: state.told(), pieces: state.pieces, result, fault_was_relayed, lacks_blank_line }
    }
}

impl State {
    /// Whether everything that was asked for has come to its end, where nothing marks the end of the stream.
    fn is_complete(&self) -> bool {
        let ended = u64::try_from(self.finished.len()).unwrap_or(u64::MAX).max(self.completed);
        self.done || ended >= self.choices.max(1)
    }

    fn told(&self) -> Option<Told> {
        self.usage.map(|usage| Told { usage, facts: self.facts })
    }

    /// Copies an event to `out` as the caller may see it.
    fn pass_on(&self, seen: Seen, frame: &Frame<'_>, cost: Option<&TellCost>, out: &mut Vec<u8>) {
        let tagged = || {
            let (cost, told, data) = (cost?, self.told()?, frame.data.as_deref()?);
            let tag = cost.tag(&told);
            let places: [&[&str]; 3] = [&["usage"], &["x_groq", "usage"], &["response", "usage"]];
            places.iter().find_map(|place| tag.write_into(data, place))
        };
        match (seen, cost) {
            (Seen::UsageAlone, None) => {}
            (Seen::Usage | Seen::UsageAlone, Some(_)) => match tagged() {
                Some(data) if frame.name.is_empty() => sse::write_data(out, &data),
                Some(data) => sse::write_event(out, &String::from_utf8_lossy(frame.name), &data),
                None => out.extend_from_slice(frame.raw),
            },
            _ => out.extend_from_slice(frame.raw),
        }
    }

    /// Takes note of an event.
    fn observe(&mut self, frame: &Frame<'_>) -> Seen {
        let Some(data) = frame.data.as_deref() else { return Seen::Nothing };
        self.pieces = self.pieces.saturating_add(1);
        match self.api {
            Api::ChatCompletions | Api::Completions if frame.name == b"error" => {
                self.reported = Some(ReplyFault::reported_event(data));
                Seen::Nothing
            }
            Api::ChatCompletions | Api::Completions => self.observe_chunk(data),
            Api::Messages => self.observe_message_event(data),
            Api::Responses => self.observe_response_event(data),
            api if api.is_side() => self.observe_side_event(data),
            _ => Seen::Nothing,
        }
    }

    fn observe_chunk(&mut self, data: &[u8]) -> Seen {
        if data == b"[DONE]" {
            self.done = true;
            return Seen::Nothing;
        }
        if !holds_text(data, b"\"finish_reason\"") && !holds_object(data, b"\"usage\"") && !holds_error(data) {
            return Seen::Nothing;
        }
        let Ok(chunk) = serde_json::from_slice::<Value>(data) else { return Seen::Nothing };
        let choices = chunk.get("choices").and_then(Value::as_array);
        let in_choices = |name: &'static str| choices.into_iter().flatten().filter_map(move |choice| choice.get(name));

        let usage = chunk.get("usage").and_then(Usage::from_openai);
        // Groq and Moonshot have places of their own for it.
        let usage = usage.or_else(|| Usage::from_openai(chunk.pointer("/x_groq/usage")?));
        let usage = usage.or_else(|| in_choices("usage").find_map(Usage::from_openai));
        self.usage = usage.or(self.usage);
        self.facts = BillingFacts::from_openai(&chunk).or(self.facts);

        let error = chunk.get("error").into_iter().chain(in_choices("error")).find(|error| !error.is_null());
        if let Some(error) = error {
            self.reported = Some(ReplyFault::reported(error));
        } else if chunk.get("object").is_some_and(|object| object == "error") {
            self.reported = Some(ReplyFault::reported(&chunk));
        }
        for choice in choices.into_iter().flatten() {
            let word = choice.get("finish_reason").and_then(Value::as_str).filter(|word| !word.is_empty());
            let Some(word) = word else { continue };
            if FinishReason::is_failure(word) {
                self.reported.get_or_insert_with(|| ReplyFault::failed_finish(word));
            }
            self.finished.insert(choice.get("index").and_then(Value::as_u64).unwrap_or(0));
        }
        match usage {
            None => Seen::Nothing,
            Some(_) if self.reported.is_none() && choices.is_none_or(Vec::is_empty) => Seen::UsageAlone,
            Some(_) => Seen::Usage,
        }
    }

    fn observe_message_event(&mut self, data: &[u8]) -> Seen {
        // Deltas are most of a stream and tell nothing.
        let matters = ["\"message_start\"", "\"message_delta\"", "\"message_stop\"", "\"error\""];
        if !matters.iter().any(|word| memchr::memmem::find(data, word.as_bytes()).is_some()) {
            return Seen::Nothing;
        }
        let Ok(event) = serde_json::from_slice::<Value>(data) else { return Seen::Nothing };
        let mut merge = |holder: Option<&Value>| {
            if let Some(usage) = holder.and_then(|holder| holder.get("usage")) {
                self.usage.get_or_insert_default().merge_anthropic(usage);
                self.facts.merge_anthropic(usage);
            }
        };
        match event.get("type").and_then(Value::as_str) {
            Some("message_start") => merge(event.get("message")),
            Some("message_delta") => {
                merge(Some(&event));
                return Seen::Usage;
            }
            Some("message_stop") => self.done = true,
            Some("error") => self.reported = Some(ReplyFault::reported(event.get("error").unwrap_or(&Value::Null))),
            _ => {}
        }
        Seen::Nothing
    }
}

impl State {
    fn observe_response_event(&mut self, data: &[u8]) -> Seen {
        // All but the last event tell nothing, and the last one is the only one that is parsed.
        let ends = ["\"response.completed\"", "\"response.incomplete\"", "\"response.failed\""];
        if !ends.iter().any(|word| memchr::memmem::find(data, word.as_bytes()).is_some()) && !holds_error(data) {
            return Seen::Nothing;
        }
        let Ok(event) = serde_json::from_slice::<Value>(data) else { return Seen::Nothing };
        let kind = event.get("type").and_then(Value::as_str).unwrap_or_default();
        if matches!(kind, "response.completed" | "response.incomplete" | "response.failed") {
            let response = event.get("response").unwrap_or(&Value::Null);
            self.usage = Usage::from_responses_reply(response).or(self.usage);
            self.facts = BillingFacts::from_openai(response).or(self.facts);
            if kind == "response.failed" {
                self.reported = Some(ReplyFault::reported(response.get("error").unwrap_or(&Value::Null)));
            }
            self.done = true;
            return Seen::Usage;
        }
        let error = event.get("error").filter(|error| !error.is_null());
        if kind == "error" || (error.is_some() && !kind.starts_with("response.")) {
            self.reported = Some(ReplyFault::reported(error.unwrap_or(&event)));
        }
        Seen::Nothing
    }
}

impl State {
    /// Of images, speech and transcripts only the last event tells anything; `n` images have as many.
    fn observe_side_event(&mut self, data: &[u8]) -> Seen {
        let ends = [".completed\"", ".done\""];
        if !ends.iter().any(|word| memchr::memmem::find(data, word.as_bytes()).is_some()) && !holds_error(data) {
            return Seen::Nothing;
        }
        let Ok(event) = serde_json::from_slice::<Value>(data) else { return Seen::Nothing };
        let kind = event.get("type").and_then(Value::as_str).unwrap_or_default();
        let error = event.get("error").filter(|error| !error.is_null());
        if kind == "error" || error.is_some() {
            self.reported = Some(ReplyFault::reported(error.unwrap_or(&event)));
            return Seen::Nothing;
        }
        if !kind.ends_with(".completed") && !kind.ends_with(".done") {
            return Seen::Nothing;
        }
        if let Some(told) = Told::from_side(self.api, &event, 1) {
            self.usage = Some(self.usage.unwrap_or_default().plus(&told.usage, u64::MAX));
            self.facts = told.facts.or(self.facts);
        }
        self.completed = self.completed.saturating_add(1);
        Seen::Usage
    }
}

/// The first byte of the value behind each occurrence of a quoted member name. Inside a JSON string the closing quote
/// would be escaped, so text that talks about the member does not match.
fn values_of<'a>(data: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = u8> + 'a {
    memchr::memmem::find_iter(data, name).filter_map(move |at| {
        let rest = data.get(at.saturating_add(name.len())..)?.trim_ascii_start().strip_prefix(b":")?;
        rest.trim_ascii_start().first().copied()
    })
}

pub(super) fn holds_text(data: &[u8], name: &[u8]) -> bool {
    values_of(data, name).any(|byte| byte == b'"')
}

fn holds_object(data: &[u8], name: &[u8]) -> bool {
    values_of(data, name).any(|byte| byte == b'{')
}

/// Whether `"error"` stands there as a value or as a member that is not null.
pub(super) fn holds_error(data: &[u8]) -> bool {
    const WORD: &[u8] = b"\"error\"";
    memchr::memmem::find_iter(data, WORD).any(|at| {
        let rest = data.get(at.saturating_add(WORD.len())..).unwrap_or_default().trim_ascii_start();
        let value = rest.strip_prefix(b":").map(|rest| rest.trim_ascii_start().first());
        value != Some(Some(&b'n'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STREAM: &str = concat!(
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"say \\\"usage\\\":{ and \\\"finish_reason\\\":\\\"\"},\"finish_reason\":null}],\"usage\":null}\n\n",
        ": comment\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\" : \"stop\"}],\"usage\":null}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5}}\n\n",
        "data: [DONE]\n\n",
    );

    fn relay(pieces: &[&[u8]]) -> (String, Metered) {
        let mut meter = Meter::new(Api::ChatCompletions, 1);
        let mut out = Vec::new();
        for piece in pieces {
            meter.relay(piece, &mut out).unwrap();
        }
        let metered = meter.finish(&mut out);
        (String::from_utf8(out).unwrap(), metered)
    }

    #[test]
    fn the_usage_chunk_is_read_and_left_out_and_nothing_else_changes() {
        let (out, metered) = relay(&[STREAM.as_bytes()]);
        let without: String = STREAM.split_inclusive("\n\n").filter(|event| !event.contains("prompt_tokens")).collect();
        assert_eq!(out, without);
        assert_eq!(metered.result, Ok(()));
        assert_eq!(metered.told.map(|told| (told.usage.input, told.usage.output)), Some((3, 2)));
    }

    #[test]
    fn the_cost_is_written_where_the_usage_is_and_nothing_is_left_out() {
        let price = crate::billing::Parts {
            input: Some(crate::billing::Picodollars(1_000_000)),
            output: Some(crate::billing::Picodollars(2_000_000)),
            ..Default::default()
        };
        let relayed = |api: Api, stream: &str, pricing: Option<Pricing>| {
            let mut meter = Meter::telling_cost(api, 1, TellCost { pricing, lost: 0 });
            let mut out = Vec::new();
            for byte in stream.as_bytes() {
                meter.relay(&[*byte], &mut out).unwrap();
            }
            meter.finish(&mut out);
            String::from_utf8(out).unwrap()
        };
        let tell = |stream: &str| relayed(Api::ChatCompletions, stream, Some(Pricing::flat(price)));
        let usage = "\"usage\":{\"prompt_tokens\"";
        assert_eq!(tell(STREAM), STREAM.replace(usage, "\"usage\":{\"cost\":0.000007,\"prompt_tokens\""));
        let unpriced = relayed(Api::ChatCompletions, STREAM, None);
        assert_eq!(unpriced, STREAM.replace(usage, "\"usage\":{\"cost\":null,\"prompt_tokens\""));
        let groq =
            "data: {\"choices\":[{\"finish_reason\":\"stop\"}],\"x_groq\":{\"usage\":{\"prompt_tokens\":3}}}\n\n";
        assert_eq!(tell(groq), groq.replace("{\"prompt", "{\"cost\":0.000003,\"prompt"));

        let messages = concat!(
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":7}}}\n\n",
            "event: ping\ndata: {\"type\": \"ping\"}\n\n",
            "event: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":9}}\n\n",
            "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
        );
        let told = relayed(Api::Messages, messages, Some(Pricing::flat(price)));
        assert_eq!(told, messages.replace("{\"output", "{\"cost\":0.000025,\"output"));
    }

    #[test]
    fn a_stream_without_an_end_is_truncated() {
        let cut = STREAM.find("data: {\"choices\":[{\"index\":0,\"delta\":{},").unwrap();
        let (_, metered) = relay(&[&STREAM.as_bytes()[..cut]]);
        assert_eq!(metered.result, Err(ReplyFault::Truncated));
        let (out, metered) = relay(&[&STREAM.as_bytes()[..cut + 30]]);
        assert_eq!(metered.result, Err(ReplyFault::Truncated));
        assert_eq!(out.as_bytes(), &STREAM.as_bytes()[..cut]);
        let (out, metered) = relay(&[STREAM.trim_end().as_bytes()]);
        assert_eq!((metered.result, out.ends_with("data: [DONE]\n\n")), (Ok(()), true));
    }

    #[test]
    fn a_stream_of_a_response_is_complete_once_its_last_event_was_seen() {
        let created =
            "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"error\":null}}\n\n";
        let delta = "data: {\"type\":\"response.output_text.delta\",\"delta\":\"say \\\"response.completed\\\"\"}\n\n";
        let last = |kind: &str, error: &str| {
            format!(
                "event: {kind}\ndata: {{\"type\":\"{kind}\",\"response\":{{\"error\":{error},\"usage\":{{\"input_tokens\":3,\
                 \"output_tokens\":2}}}}}}\n\n"
            )
        };
        let metered = |stream: &str| {
            let mut meter = Meter::new(Api::Responses, 1);
            stream.as_bytes().chunks(7).for_each(|piece| meter.read(piece).unwrap());
            meter.finish(&mut Vec::new())
        };
        let begun = format!("{created}{delta}");
        assert_eq!(metered(&begun).result, Err(ReplyFault::Truncated));
        for kind in ["response.completed", "response.incomplete"] {
            let whole = metered(&format!("{begun}{}", last(kind, "null")));
            assert_eq!(whole.result, Ok(()));
            assert_eq!(whole.told.map(|told| (told.usage.input, told.usage.output)), Some((3, 2)));
        }
        let sorry = "{\"code\":\"server_error\",\"message\":\"sorry\"}";
        let fault = Err(ReplyFault::Reported { message: "sorry".to_owned(), code: Some("server_error".to_owned()) });
        assert_eq!(metered(&format!("{begun}{}", last("response.failed", sorry))).result, fault);
        let error = "data: {\"type\":\"error\",\"code\":\"server_error\",\"message\":\"sorry\",\"param\":null}\n\n";
        assert_eq!(metered(&format!("{begun}{error}")).result, fault);
        assert!(metered(&format!("{begun}{error}")).fault_was_relayed);

        let mut meter = Meter::telling_cost(Api::Responses, 1, TellCost::default());
        let mut out = Vec::new();
        meter.relay(last("response.completed", "null").as_bytes(), &mut out).unwrap();
        assert!(String::from_utf8(out).unwrap().contains("\"usage\":{\"cost\":null,\"input_tokens\":3"));
    }

    #[test]
    fn an_error_event_is_passed_on_and_noticed() {
        let (out, metered) =
            relay(&[b"data: {\"error\":{\"message\":\"no\",\"code\":\"overloaded\"}}\n\ndata: [DONE]\n\n"]);
        assert!(out.contains("\"no\""));
        assert!(metered.fault_was_relayed);
        assert_eq!(metered.result, Err(ReplyFault::Reported { message: "no".into(), code: Some("overloaded".into()) }));
    }

    #[test]
    fn an_error_in_any_form_is_noticed_and_its_usage_read() {
        let begun = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"say \\\"error\\\"\"},\"error\":null}],\"error\":null}\n\n";
        let end = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
        let (_, fine) = relay(&[begun.as_bytes(), end.as_bytes()]);
        assert_eq!(fine.result, Ok(()));
        for error in [
            "data: {\"error\":\"no\"}",
            "event: error\ndata: {\"message\":\"no\"}",
            "data: {\"object\":\"error\",\"message\":\"no\"}",
            "data: {\"choices\":[{\"index\":0,\"error\":{\"message\":\"no\"}}]}",
            "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"error\"}]}",
            "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"network_error\"}]}",
            "data: {\"choices\":[],\"error\":{\"message\":\"no\"},\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}",
        ] {
            let stream = format!("{begun}{error}\n\n{end}");
            let (out, metered) = relay(&[stream.as_bytes()]);
            assert!(matches!(metered.result, Err(ReplyFault::Reported { .. })), "{error}");
            assert!(metered.fault_was_relayed && out == stream, "{error}");
            assert_eq!(metered.told.is_some(), error.contains("prompt_tokens"), "{error}");
        }
    }

    #[test]
    fn an_empty_finish_reason_is_none() {
        let (_, metered) =
            relay(&[b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":\"\"}]}\n\n"]);
        assert_eq!(metered.result, Err(ReplyFault::Truncated));
    }

    #[test]
    fn usage_is_found_wherever_providers_tell_it() {
        for chunk in [
            "{\"choices\":[{\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}",
            "{\"choices\":[{\"finish_reason\":\"stop\"}],\"x_groq\":{\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}}",
            "{\"choices\":[{\"finish_reason\":\"stop\",\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}]}",
        ] {
            let stream = format!("data: {chunk}\n\n");
            let (out, metered) = relay(&[stream.as_bytes()]);
            assert_eq!(metered.told, Some(Usage { input: 3, output: 2, ..Usage::default() }.into()), "{chunk}");
            assert_eq!(out, stream, "a chunk with a choice is not the gateway's to remove");
        }
        let (out, metered) = relay(&[b"data: {\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n"]);
        assert_eq!((out.as_str(), metered.told.is_some()), ("", true));
    }

    #[test]
    fn messages_streams_are_complete_at_message_stop() {
        let mut meter = Meter::new(Api::Messages, 1);
        meter.read(b"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":7,\"cache_read_input_tokens\":2,\"output_tokens\":1}}}\n\n").unwrap();
        meter.read(b"event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":9}}\n\n").unwrap();
        meter.read(b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n").unwrap();
        let metered = meter.finish(&mut Vec::new());
        assert_eq!(metered.result, Ok(()));
        assert_eq!(metered.told, Some(Usage { input: 7, cache_read: 2, output: 9, ..Usage::default() }.into()));
    }

    proptest! {
        #[test]
        fn where_the_bytes_are_cut_makes_no_difference(cuts in proptest::collection::vec(0..STREAM.len(), 0..8)) {
            let mut at = cuts;
            at.extend([0, STREAM.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|w| &STREAM.as_bytes()[w[0]..w[1]]).collect();
            prop_assert_eq!(relay(&pieces), relay(&[STREAM.as_bytes()]));
        }
    }

    #[test]
    fn a_stream_is_complete_when_all_that_was_asked_for_is() {
        let end = |index: u64| format!("data: {{\"choices\":[{{\"index\":{index},\"finish_reason\":\"stop\"}}]}}\n\n");
        let image = "data: {\"type\":\"image_generation.completed\",\"b64_json\":\"\"}\n\n".to_owned();
        let result = |api, choices, events: &[String]| {
            let mut meter = Meter::new(api, choices);
            meter.read(events.concat().as_bytes()).unwrap();
            meter.finish(&mut Vec::new()).result
        };
        let cut = Err(ReplyFault::Truncated);
        let chat = Api::ChatCompletions;
        assert_eq!(result(chat, 1, &[end(0)]), Ok(()));
        assert_eq!(result(chat, 2, &[end(0)]), cut);
        assert_eq!(result(chat, 2, &[end(0), end(0)]), cut);
        assert_eq!(result(chat, 2, &[end(1), end(0)]), Ok(()));
        assert_eq!(result(chat, 2, &[end(0), "data: [DONE]\n\n".to_owned()]), Ok(()));
        assert_eq!(result(Api::ImageGeneration, 2, std::slice::from_ref(&image)), cut);
        assert_eq!(result(Api::ImageGeneration, 2, &[image.clone(), image]), Ok(()));
    }

    #[test]
    fn an_event_without_its_blank_line_is_known() {
        let lacks = |text: &str| {
            let mut meter = Meter::new(Api::ChatCompletions, 1);
            meter.read(text.as_bytes()).unwrap();
            meter.finish(&mut Vec::new()).lacks_blank_line
        };
        assert!(lacks("data: [DONE]") && lacks("data: {\"error\":{\"message\":\"no\"}}\n"));
        assert!(!lacks("data: [DONE]\n\n") && !lacks("data: {\"cho"));
    }
}
