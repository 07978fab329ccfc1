//! Reads along with a reply that is passed on as it is, whatever it is: what it used, if it tells, and how much it says.

use serde_json::Value;

use super::estimate::BYTES_PER_TOKEN;
use super::meter::{holds_error, holds_text};
use crate::protocol::chat::ReplyFault;
use crate::protocol::event_stream::EventStreamDecoder;
use crate::protocol::frames::{Framing, Lines, RawEvent, Sse};
use crate::protocol::usage::Told;

/// The most of a JSON reply that is read as a whole. Of a longer one only the end is looked at, where the usage stands.
const WHOLE_BYTES: usize = 1024 * 1024;

/// How much of the end of such a reply is looked at.
const TAIL_BYTES: usize = 64 * 1024;

/// Reads one reply.
pub struct Recogniser {
    form: Form,
    told: Option<Told>,
    bytes: u64,
    course: Course,
}

/// How a stream of events goes, as far as it is of a kind that is known.
#[derive(Default)]
struct Course {
    /// It has begun as an answer of a model does …
    has_begun: bool,
    /// … and has come to its end as one.
    has_ended: bool,
    /// What the provider has told of as failed.
    reported: Option<ReplyFault>,
    /// Its framing shows that something is missing.
    is_cut: bool,
}

enum Form {
    /// Events, each of them JSON.
    Events(Box<dyn Framing>),
    /// JSON: the whole of it so far, or, once that is too long, its end.
    Json { kept: Vec<u8>, is_whole: bool },
    /// Text that a model may have written.
    Text,
    /// Anything else.
    Bytes,
}

/// The form of a content type.
fn form(content_type: Option<&str>) -> Form {
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "text/event-stream" => Form::Events(Box::new(Sse::default())),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Form::Events(Box::new(Lines::default())),
        "application/vnd.amazon.eventstream" => Form::Events(Box::new(EventStreamDecoder::default())),
        "application/json" => Form::Json { kept: Vec::new(), is_whole: true },
        it if it.ends_with("+json") => Form::Json { kept: Vec::new(), is_whole: true },
        it if it.starts_with("text/") => Form::Text,
        _ => Form::Bytes,
    }
}

impl Recogniser {
    /// A reader for a reply of this content type. Where it is not `metered`, no usage is looked for: what is asked for again
    /// later would be charged again.
    pub fn new(content_type: Option<&str>, metered: bool) -> Self {
        let form = if metered { form(content_type) } else { Form::Bytes };
        Self { form, told: None, bytes: 0, course: Course::default() }
    }

    /// Reads the next bytes.
    pub fn read(&mut self, bytes: &[u8]) {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        let (told, course) = (&mut self.told, &mut self.course);
        match &mut self.form {
            Form::Events(framing) => {
                let read = framing.push(bytes, &mut |event| {
                    see(&event.data, told);
                    course.follow(event);
                    Ok(())
                });
                // What cannot be divided is the caller's to understand; it is not read any further.
                if read.is_err() {
                    self.form = Form::Text;
                }
            }
            Form::Json { kept, is_whole } => {
                kept.extend_from_slice(bytes);
                *is_whole &= kept.len() <= WHOLE_BYTES;
                // Cut only now and then, or a long reply in many pieces would be copied again with each.
                if !*is_whole && kept.len() > TAIL_BYTES.saturating_mul(2) {
                    kept.drain(..kept.len().saturating_sub(TAIL_BYTES));
                }
            }
            Form::Text | Form::Bytes => {}
        }
    }

    /// The reply has ended: what it told.
    pub fn finish(&mut self) -> Option<Told> {
        let (told, course) = (&mut self.told, &mut self.course);
        match &mut self.form {
            Form::Events(framing) => {
                let finished = framing.finish(&mut |event| {
                    see(&event.data, told);
                    course.follow(event);
                    Ok(())
                });
                course.is_cut = finished.is_err();
            }
            Form::Json { kept, is_whole: true } => see(kept, told),
            Form::Json { kept, is_whole: false } => *told = at_the_end(kept),
            Form::Text | Form::Bytes => {}
        }
        self.told
    }

    /// What the provider has told of as failed; the caller has been told of it, too.
    pub fn reported(&self) -> Option<ReplyFault> {
        self.course.reported.clone()
    }

    /// Whether a reply that has ended lacks what its beginning promised.
    pub fn is_cut(&self) -> bool {
        let Course { has_begun, has_ended, is_cut, .. } = self.course;
        is_cut || (has_begun && !has_ended)
    }

    /// About how many tokens of text a model has written, for a reply that tells no usage.
    pub fn estimate(&self) -> u64 {
        if matches!(self.form, Form::Bytes) { 0 } else { self.bytes.div_ceil(BYTES_PER_TOKEN) }
    }

    /// How many bytes have come.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Course {
    fn follow(&mut self, event: &RawEvent<'_>) {
        const BEGIN: &[&str] =
            &["\"chat.completion.chunk\"", "\"message_start\"", "\"response.created\"", "\"candidates\""];
        const END: &[&str] =
            &["\"message_stop\"", "\"response.completed\"", "\"response.incomplete\"", "\"response.failed\""];
        let data = event.data.as_ref();
        let has = |words: &[&str]| words.iter().any(|word| memchr::memmem::find(data, word.as_bytes()).is_some());
        if event.exception || event.name == b"error" {
            let fault = ReplyFault::reported_event(data);
            let name = || String::from_utf8_lossy(event.name).into_owned();
            self.reported.get_or_insert(match fault {
                ReplyFault::Reported { message, code: None } => ReplyFault::Reported { message, code: Some(name()) },
                fault => fault,
            });
            return;
        }
        if holds_error(data)
            && let Ok(value) = serde_json::from_slice::<Value>(data)
        {
            let is_error = ["type", "object"].iter().any(|name| value.get(name).is_some_and(|it| it == "error"));
            let error = value.get("error").filter(|error| !error.is_null()).or_else(|| is_error.then_some(&value));
            if let Some(error) = error {
                self.reported.get_or_insert_with(|| ReplyFault::reported(error));
            }
        }
        self.has_begun |= event.name == b"messageStart" || has(BEGIN);
        self.has_ended |= data == b"[DONE]"
            || event.name == b"messageStop"
            || has(END)
            || ["\"finish_reason\"", "\"finishReason\""].iter().any(|name| holds_text(data, name.as_bytes()));
    }
}

/// Reads a JSON document if it may tell usage.
fn see(data: &[u8], told: &mut Option<Told>) {
    let may_tell = [&b"\"usage"[..], b"\"billed_units\""];
    if may_tell.iter().any(|word| memchr::memmem::find(data, word).is_some())
        && let Ok(value) = serde_json::from_slice::<Value>(data)
    {
        *told = Told::recognise(&value, *told).or(*told);
    }
}

/// The usage that stands last in the end of a JSON document.
fn at_the_end(tail: &[u8]) -> Option<Told> {
    ["usage", "usageMetadata"].iter().find_map(|name| {
        let quoted = format!("\"{name}\"");
        let at = memchr::memmem::rfind(tail, quoted.as_bytes())?;
        let value = tail.get(at.saturating_add(quoted.len())..)?.trim_ascii_start().strip_prefix(b":")?;
        let value = serde_json::Deserializer::from_slice(value).into_iter::<Value>().next()?.ok()?;
        Told::recognise(&serde_json::json!({*name: value}), None)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STREAM: &str = concat!(
        "data: {\"choices\":[{\"delta\":{\"content\":\"\\\"usage\\\": {\"}}],\"usage\":null}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n",
        "data: [DONE]\n\n",
    );

    fn told(content_type: &str, pieces: &[&[u8]]) -> Option<(u64, u64)> {
        let mut reader = Recogniser::new(Some(content_type), true);
        pieces.iter().for_each(|piece| reader.read(piece));
        reader.finish().map(|told| (told.usage.input_total(), told.usage.output_total()))
    }

    #[test]
    fn usage_is_found_in_events_lines_and_documents() {
        assert_eq!(told("text/event-stream; charset=utf-8", &[STREAM.as_bytes()]), Some((3, 2)));
        let document = br#"{"usage":{"prompt_tokens":3,"completion_tokens":2}}"#;
        assert_eq!(told("Application/JSON", &[document]), Some((3, 2)));
        assert_eq!(told("application/x-ndjson", &[document, b"\n{}\n"]), Some((3, 2)));
        assert_eq!(told("text/plain", &[document]), None);
        assert_eq!(told("application/json", &[b"{\"usage\":"]), None);
        assert_eq!(told("text/event-stream", &[b"data: {\"usage\":{\"prompt_tokens\":3"]), None);
    }

    #[test]
    fn a_stream_that_is_known_must_come_to_its_end() {
        let judged = |content_type: &str, stream: &[u8]| {
            let mut reader = Recogniser::new(Some(content_type), true);
            reader.read(stream);
            reader.finish();
            let code = reader.reported().map(|fault| fault.code().to_owned());
            (reader.is_cut(), code.unwrap_or_default())
        };
        let events = |data: &[&str]| {
            let stream: String = data.iter().map(|data| format!("data: {data}\n\n")).collect();
            judged("text/event-stream", stream.as_bytes())
        };
        let good = (false, String::new());
        let chunk = r#"{"object":"chat.completion.chunk","choices":[{"delta":{"content":"a"},"finish_reason":null}]}"#;
        assert_eq!(events(&[chunk, "[DONE]"]), good);
        assert_eq!(events(&[chunk, r#"{"choices":[{"finish_reason":"stop"}]}"#]), good);
        assert!(events(&[chunk]).0);
        assert!(events(&[r#"{"type":"message_start"}"#, r#"{"type":"content_block_delta"}"#]).0);
        assert_eq!(events(&[r#"{"type":"message_start"}"#, r#"{"type":"message_stop"}"#]), good);
        assert!(events(&[r#"{"type":"response.created"}"#]).0);
        assert_eq!(
            events(&[r#"{"candidates":[{"content":{}}]}"#, r#"{"candidates":[{"finishReason":"STOP"}]}"#]),
            good
        );
        assert_eq!(events(&["tick", "tock"]), good);
        assert_eq!(events(&[chunk, r#"{"error":{"message":"m","code":"overloaded"}}"#]).1, "overloaded");
        assert_eq!(
            events(&[r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#]).1,
            "overloaded_error"
        );
        assert_eq!(judged("text/event-stream", b"event: error\ndata: oh\n\n").1, "error");
        assert!(judged("application/vnd.amazon.eventstream", &[0, 0, 0, 100, 0, 0]).0);
    }

    #[test]
    fn a_long_documents_usage_is_found_at_its_end() {
        let embedding = "0.125,".repeat(500_000);
        let long = format!("{{\"data\":[{embedding}0],\"usage\" : {{\"prompt_tokens\":7,\"total_tokens\":7}}}}");
        let pieces: Vec<&[u8]> = long.as_bytes().chunks(10_000).collect();
        assert_eq!(told("application/json", &pieces), Some((7, 0)));
        let unfinished: Vec<&[u8]> = pieces.iter().copied().take(pieces.len() - 1).collect();
        assert_eq!(told("application/json", &unfinished), None);
    }

    #[test]
    fn only_what_may_be_text_is_estimated() {
        for (content_type, tokens) in [("text/plain", 25), ("application/json", 25), ("audio/mpeg", 0)] {
            let mut reader = Recogniser::new(Some(content_type), true);
            reader.read(&[b'a'; 100]);
            assert_eq!((reader.estimate(), reader.bytes()), (tokens, 100));
        }
    }

    #[test]
    fn what_is_not_metered_tells_nothing() {
        let mut reader = Recogniser::new(Some("application/json"), false);
        reader.read(br#"{"usage":{"prompt_tokens":3}}"#);
        assert_eq!((reader.finish(), reader.estimate()), (None, 0));
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(cuts in prop::collection::vec(0..STREAM.len(), 0..6)) {
            let mut cuts = cuts;
            cuts.extend([0, STREAM.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &STREAM.as_bytes()[cut[0]..cut[1]]).collect();
            prop_assert_eq!(told("text/event-stream", &pieces), Some((3, 2)));
        }
    }
}
