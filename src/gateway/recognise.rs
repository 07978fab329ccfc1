//! Reads along with a reply that is passed on as it is, whatever it is: what it used, if it tells, and how much it says.

use serde_json::Value;

use super::estimate::BYTES_PER_TOKEN;
use crate::protocol::event_stream::EventStreamDecoder;
use crate::protocol::frames::{Framing, Lines, Sse};
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
        Self { form, told: None, bytes: 0 }
    }

    /// Reads the next bytes.
    pub fn read(&mut self, bytes: &[u8]) {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        let told = &mut self.told;
        match &mut self.form {
            Form::Events(framing) => {
                let read = framing.push(bytes, &mut |event| {
                    see(&event.data, told);
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
        let told = &mut self.told;
        match &mut self.form {
            Form::Events(framing) => {
                // A broken end tells nothing.
                let _broken = framing.finish(&mut |event| {
                    see(&event.data, told);
                    Ok(())
                });
            }
            Form::Json { kept, is_whole: true } => see(kept, told),
            Form::Json { kept, is_whole: false } => *told = at_the_end(kept),
            Form::Text | Form::Bytes => {}
        }
        self.told
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
